"""The suite proves itself: known bugs are caught and named by the right law, and the same plugin without them passes."""

from __future__ import annotations

import pytest
from known_bugs import BUGS, Sound

from hookline.testing import check, laws
from hookline.testing.suite import judge, opened


@pytest.mark.parametrize("bug", BUGS)
def test_a_known_bug_is_named_by_its_law(bug: str) -> None:
    plugin, [first, *_] = BUGS[bug]
    [law] = [law for law in laws(plugin) if law.name == first]
    with opened(plugin, {}) as subject:
        verdict = judge(law, subject)
    assert verdict.outcome == "fail", verdict
    assert verdict.detail


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_known_bug_breaks_no_other_law(bug: str) -> None:
    plugin, broken = BUGS[bug]
    report = check(plugin)
    assert [verdict.law for verdict in report.broken] == broken, str(report)
    assert all(verdict.detail for verdict in report.broken)


def test_without_the_bug_every_law_holds() -> None:
    report = check(Sound)
    assert report.passed, str(report)
    asked = {verdict.law for verdict in report.verdicts if verdict.outcome == "pass"}
    assert {"padding", "micro-batches", "permutation", "options", "gradcheck", "resume", "zero-advantage"} <= asked
