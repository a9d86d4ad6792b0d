"""For pytest, in any distribution that has Hookline: the fixtures `bench` and `conforms`. Nothing is imported until used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hookline.contract.component import Component
    from hookline.testing import Bench, Report, Subject


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """`bench(Mine, gamma=0.9)`: the component in a real phase on a tiny model, at its start: `.step()`, `.batch("score")`, …"""
    from hookline.testing.harness import Subject, offer_of

    subjects: list[Subject] = []

    def make(component: type[Component], **options: Any) -> Bench:
        folder = tmp_path / f"bench-{len(subjects)}"
        folder.mkdir()
        subjects.append(Subject(offer_of(component), options, folder))
        return subjects[-1].bench()

    yield make
    for subject in subjects:
        subject.close()


@pytest.fixture
def conforms() -> Callable[..., Report]:
    """`conforms(Mine, gamma=0.9)`: every law's verdict; fails the test when one is broken."""
    from hookline.testing import check

    def hold(component: type[Component], **options: Any) -> Report:
        __tracebackhide__ = True
        report = check(component, **options)
        if not report.passed:
            pytest.fail(str(report), pytrace=False)
        return report

    return hold
