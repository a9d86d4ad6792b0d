"""A page that is served, with a store in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import SECRET, Served, serve

import hookline
from hookline_plugins.page.access import People
from hookline_plugins.page.app import Page
from hookline_plugins.page.desk import Desk
from hookline_plugins.page.questions import Question


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serve items: `served([item(…)], repeat_every=2)`."""
    begun: list[Served] = []

    def begin(
        items: Any = (),
        *,
        url: str = "",
        question: Question | None = None,
        title: str = "",
        guidelines: str = "",
        **desk: Any,
    ) -> Served:
        store = hookline.store(url or f"sqlite:///{tmp_path / 'answers.db'}")
        store.put(items)
        made = Desk(store, SECRET, question, **desk)
        people = People(tmp_path / "people.json")
        begun.append(serve(lambda hosts: Page(made, people, hosts, title=title, guidelines=guidelines)))
        return begun[-1]

    yield begin
    for one in begun:
        one.stop()
        one.store.close()
