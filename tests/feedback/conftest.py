"""Places for stores: files of the test's own, and databases of one server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from databases import create_database, needs_postgres, postgres

PLACES = ["jsonl", "sqlite", pytest.param("postgresql", marks=needs_postgres)]
_numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """A new place for a store of a kind."""

    def made(kind: str) -> str:
        name = f"answers{next(_numbers)}"
        if kind == "postgresql":
            return create_database(request.getfixturevalue("server"), name)
        return str(tmp_path / f"{name}.jsonl") if kind == "jsonl" else f"sqlite:///{tmp_path}/{name}.db"

    return made


@pytest.fixture(params=PLACES)
def url(request: pytest.FixtureRequest, place: Callable[[str], str]) -> str:
    return place(request.param)
