"""Every law is a law: somebody breaks it and is told so, and who keeps it is left in peace."""

from __future__ import annotations

from typing import Any

import pytest
from known_bugs import BUGS
from lawbreakers import BREAKERS, Excused, Keeps
from lawbreakers_apart import BREAKERS_APART, Coin, Lines, Plain, Verb
from lawbreakers_learning import BREAKERS_LEARNING, Asks, Deaf, Followed, Foresight, Moody, RemembersAsking, Shuffles

from hookline import Component, PluginError
from hookline.testing import Verdict, check, laws
from hookline.testing.suite import every_law, judge, opened


def verdict(cls: type[Component], name: str, **options: Any) -> Verdict:
    """What one law says about a component."""
    [law] = [law for law in laws(cls) if law.name == name]
    with opened(cls, options) as subject:
        return judge(law, subject)


@pytest.mark.parametrize(
    ("law", "cls"),
    [
        pytest.param(law, cls, marks=pytest.mark.slow if number else ())
        for found in (BREAKERS, BREAKERS_APART, BREAKERS_LEARNING)
        for law, several in found.items()
        for number, cls in enumerate(several)
    ],
)
def test_who_breaks_a_law_is_told_by_that_law(law: str, cls: type[Component]) -> None:
    said = verdict(cls, law)
    assert said.outcome == "fail", said
    assert said.detail


@pytest.mark.slow
@pytest.mark.parametrize(("law", "cls"), [(law, cls) for law, several in BREAKERS_LEARNING.items() for cls in several])
def test_one_fault_breaks_one_law(law: str, cls: type[Component]) -> None:
    report = check(cls)
    assert [said.law for said in report.broken] == [law], str(report)


@pytest.mark.slow
@pytest.mark.parametrize("cls", [Asks, Foresight, Followed])
def test_the_same_without_the_fault_keeps_every_law(cls: type[Component]) -> None:
    report = check(cls)
    assert report.passed, str(report)


def test_a_reward_that_judges_no_row_keeps_nothing() -> None:
    report = check(Deaf)
    kept = [said.law for said in report.verdicts if said.outcome == "pass"]
    assert kept == ["documented", "opens-nothing", "closes"]
    assert (report.passed, report.broken, report.exit_code) == (False, [], 7)
    assert {said.detail for said in report.untried} == {
        "the reward judged none of 12 rows through ctx.each: no service answered; start what it asks, then repeat"
    }
    assert str(report).count("the reward judged none") == 1
    assert f"3 laws kept, 0 broken, 0 not applicable, {len(report.untried)} not tried" in str(report)


def test_what_asking_remembers_is_told_apart_from_state_that_is_not_saved() -> None:
    said = verdict(RemembersAsking, "resume")
    assert "do not ask again" in said.detail
    assert "state of reward/" in said.detail


def test_a_global_generator_is_named_and_other_laws_wait() -> None:
    for cls, name in ((Shuffles, "numpy.random"), (Moody, "torch")):
        report = check(cls)
        [said] = report.broken
        assert f"the global generator of {name}," in said.detail
        assert not [v for v in report.verdicts if v.detail == "pass" and v.law in ("resume", "padding", "permutation")]
        assert "more laws need a component that leaves the global random generators alone" in str(report)


def test_no_law_is_left_untried() -> None:
    names = {law.name for law in every_law()}
    tried = {*BREAKERS, *BREAKERS_APART, *BREAKERS_LEARNING, *(law for _, broken in BUGS.values() for law in broken)}
    assert names == tried
    for law in every_law():
        assert law.meaning.endswith("."), law.name


@pytest.mark.parametrize("cls", [Plain, Coin, Lines, Verb])
def test_who_keeps_the_laws_of_its_kind_is_left_in_peace(cls: type[Component]) -> None:
    report = check(cls)
    assert report.passed, str(report)
    plain = {"writes-what-it-reads", "exact"}  # of formats that write events, and of engines that give `exact`
    assert not [v for v in report.verdicts if v.outcome == "not applicable" and v.law not in plain], str(report)


def test_a_promise_is_tried_only_where_it_is_made() -> None:
    said = verdict(Keeps, "reinforce")
    assert (said.outcome, said.detail) == ("pass", "averaged over tokens")
    assert "reinforce" not in {law.name for law in laws(Excused)}


def test_an_exemption_is_shown_with_its_reason() -> None:
    said = verdict(Excused, "gradcheck")
    assert (said.outcome, said.detail) == (
        "not applicable",
        "the component says: the weight is held still, as in its paper",
    )


def test_one_sentence_when_there_is_nothing_to_check(hookline_conforms: Any) -> None:
    class Nothing(Component):
        """Answers no hook."""

    with pytest.raises(PluginError, match="Nothing answers no hook"):
        hookline_conforms(Nothing)


def test_the_bench_is_a_real_phase(hookline_harness: Any) -> None:
    ready = hookline_harness(Keeps, lr=1e-3)
    before = ready.weights()
    assert ready.step()["optimiser_steps"] == 2
    assert any(not value.equal(before[name]) for name, value in ready.weights().items())
    ready.restore()
    assert all(value.equal(before[name]) for name, value in ready.weights().items())


def test_the_function_laws_stays_a_function_whatever_was_imported_first() -> None:
    import hookline.testing
    from hookline.testing.suite import every_law

    every_law()  # imports every module of laws
    assert callable(hookline.testing.laws)
