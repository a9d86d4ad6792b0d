"""The pytest fixtures `hookline_harness` and `hookline_conforms`, for any distribution that installs Hookline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hookline.contract.component import Component
    from hookline.testing import Harness, Report, Subject


@pytest.fixture
def hookline_harness(tmp_path: Path) -> Iterator[Callable[..., Harness]]:
    """`hookline_harness(Mine, gamma=0.9)`: the component at the start of a phase on a tiny model: `.step()`, …"""
    from hookline.testing.subject import Subject, offer_of

    subjects: list[Subject] = []

    def make(component: type[Component], **options: Any) -> Harness:
        folder = tmp_path / f"harness-{len(subjects)}"
        folder.mkdir()
        subjects.append(Subject(offer_of(component), options, folder))
        return subjects[-1].harness()

    yield make
    for subject in subjects:
        subject.close()


@pytest.fixture
def hookline_conforms() -> Callable[..., Report]:
    """`hookline_conforms(Mine, gamma=0.9)`: every law's verdict; fails the test if a law is broken."""
    from hookline.testing import check

    def hold(component: type[Component], **options: Any) -> Report:
        __tracebackhide__ = True
        report = check(component, **options)
        if not report.passed:
            pytest.fail(str(report), pytrace=False)
        return report

    return hold
