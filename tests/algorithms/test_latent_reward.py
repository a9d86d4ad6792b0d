"""The loss of a reward behind judgements of every kind, computed by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from judged_events import EVENTS, event, experiment

import hookline
from hookline import DataError, ExperimentError
from hookline.loop.loop import PhaseLoop
from hookline.testing import conformance, open_phase
from hookline_plugins import likelihoods as lk
from hookline_plugins.algorithms.latent_reward import LatentReward

slow = pytest.mark.slow
test_latent_reward_keeps_the_laws = slow(conformance(LatentReward))


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[PhaseLoop]:
    update = {
        "comparison": "davidson",
        "both_bad": "outside",
        "ranking": "davidson-luce",
        "balance": True,
        "weights": {"thumb": 0.5},
    }
    with open_phase(experiment(tmp_path / "events.jsonl", EVENTS, update)) as loop:
        yield loop


def test_the_loss_is_the_sum_of_what_each_judgement_says(judged: PhaseLoop) -> None:
    batch = judged.hooks.rollout(judged.ctx)
    update = judged.planned.update.component
    reward_B = hookline.read_last(judged.ctx.stats(batch, want=("reward",))["reward"], batch.mask_BT).double()
    texts = [batch.response_text(row) for row in range(len(batch))]
    r = {text: float(value) for text, value in zip(texts, reward_B)}
    one, two, three, fixed = r["abc def"], r["abd def"], r["xyz"], r["abc dxf"]
    nu = torch.tensor(math.log(0.5), dtype=torch.float64)

    def x(*values: float) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    said = lk.with_outside_option(lk.davidson(x(one - two), nu), x(one), x(two), x(0)[0])[0]
    edited = lk.with_outside_option(lk.davidson(x(one - fixed), nu), x(one), x(fixed), x(0)[0])[0]
    ranked = lk.davidson_luce(x(one, two, three)[None], x(0, 0, 1)[None], nu[None])
    rated = lk.cumulative_logit(x(two), torch.tensor([3]), torch.linspace(-2, 2, 4).double())
    thumbs = [
        0.75 * lk.soft_binary(x(one), 1.0),
        1.5 * lk.soft_binary(x(two), 0.0),
        0.75 * lk.soft_binary(x(three), 1.0),
    ]
    want = -said[lk.SECOND] - said[lk.TIE] - said[lk.NEITHER] - edited[lk.SECOND]
    total = float(want + ranked[0] + rated[0] + 0.5 * sum(thumbs)[0]) / 9
    counted = [one, two] * 3 + [one, two, three, two, one, two, three, one, fixed]
    figures = update.held_out(judged.ctx.bound(judged.planned.update), batch)
    centre = 0.01 * sum(value * value for value in counted) / len(counted)
    assert _mean(figures["loss"]) == pytest.approx(total + centre, abs=1e-4)
    assert set(figures) >= {
        "loss",
        "comparison_loss",
        "ranking_loss",
        "rating_loss",
        "thumb_loss",
        "correction_loss",
        "accuracy",
    }
    assert _mean(figures["ranking_loss"]) == pytest.approx(float(ranked), abs=1e-4)
    assert _mean(figures["rating_loss"]) == pytest.approx(float(rated), abs=1e-4)
    assert _mean(figures["comparison_loss"]) == pytest.approx(
        float(-(said[lk.SECOND] + said[lk.TIE] + said[lk.NEITHER])) / 3, abs=1e-4
    )
    assert _mean(figures["correction_loss"]) == pytest.approx(-float(edited[lk.SECOND]), abs=1e-4)
    assert _mean(figures["thumb_loss"]) == pytest.approx(float(sum(thumbs)) / 3, abs=1e-4)


def _mean(term: Any) -> float:
    weight_B = torch.ones(len(term.value)) if term.weight_B is None else term.weight_B
    return float((term.value.double() * weight_B).sum() / weight_B.sum())


def test_what_the_chosen_likelihood_does_not_describe_is_refused_or_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with (
        open_phase(experiment(path, EVENTS, {"levels": 7})) as loop,
        pytest.raises(DataError, match=r"a scale of 5 marks.*reads 7"),
    ):
        loop.step()
    with open_phase(
        experiment(path, EVENTS)
    ) as loop:  # ties and both-bad are left out, a tie in a ranking is not compared
        batch = loop.hooks.rollout(loop.ctx)
        kept = loop.planned.update.component._columns(batch)
        assert float(kept.extra["judgement_B"].sum()) == 7
        assert not bool((kept.rows(kept.extra["said_B"] > 0).extra["outcome_B"] >= 2).any())
    tied = event({"kind": "ranking", "order": [[0, 1, 2]]}, n=3)
    with (
        open_phase(experiment(path, [tied], {"ranking": "davidson-luce"})) as loop,
        pytest.raises(DataError, match=r"ties with 2 others.*set most_tied: 3"),
    ):
        loop.step()
    for wrong, says in (
        ({"flips": 0.1}, "noise"),
        ({"comparison": "davidson", "strength": "margin"}, "strength is read under"),
        ({"strength": "soft", "strengths": [1, 2, 3]}, "probabilities"),
        ({"strengths": [1, 2, 3]}, "strength is weight, margin or soft"),
        ({"strength": "weight", "noise": "learned"}, "choose margin or soft"),
    ):
        with pytest.raises(ExperimentError, match=says), open_phase(experiment(path, EVENTS, wrong)):
            pass


@pytest.mark.parametrize(
    ("outputs", "axes", "update", "says"),
    [
        (["true", "kind"], ["true", "short"], {}, "ratings are read on the axis 'short', and the head 'reward' has the outputs true, kind"),
        (["true", "kind", "short"], ["kind", "true"], {}, "no axis of ratings is called 'short'"),
        (["1", "2", "3", "4", "5"], ["kind", "true"], {"outputs": "classes"}, "the marks of one axis, and the rollout reads 2"),
    ],
)
def test_axes_of_ratings_are_outputs_by_name(
    outputs: list[str], axes: list[str], update: dict[str, Any], says: str, tmp_path: Path
) -> None:
    rated = event({"kind": "rating", "of": 0, "marks": {"true": 5, "kind": 1, "short": 3}})
    made = experiment(tmp_path / "events.jsonl", [rated], update, axes=axes)
    made["phases"][0]["model"] = {"head": {"use": "reward", "outputs": outputs}}
    with pytest.raises(ExperimentError, match=says), open_phase(made):
        pass


def test_a_rating_without_a_named_axis_is_about_the_output_overall(tmp_path: Path) -> None:
    made = experiment(tmp_path / "events.jsonl", [event({"kind": "rating", "of": 0, "marks": {"true": 5}})])
    made["phases"][0]["model"] = {"head": {"use": "reward", "outputs": ["true", "kind"]}}
    with open_phase(made) as loop, pytest.raises(DataError, match=r"a rating is about none of them → .* axes: \[true, kind\]"):
        loop.step()
    made["phases"][0]["model"]["head"]["outputs"].append("overall")
    with pytest.raises(ExperimentError, match="no axis of ratings is called 'true'"), open_phase(made):
        pass


def test_a_mark_teaches_the_output_of_its_name_alone(tmp_path: Path) -> None:
    rated = event({"kind": "rating", "of": 0, "marks": {"true": 5}})
    other = event({"kind": "rating", "of": 0, "marks": {"kind": 5}})
    made = experiment(tmp_path / "events.jsonl", [rated, other], {}, axes=["kind", "true"], rows=2)
    made["phases"][0]["model"] = {"head": {"use": "reward", "outputs": ["true", "kind", "overall"]}}
    with open_phase(made) as loop:
        update, batch = loop.planned.update.component, loop.hooks.rollout(loop.ctx)
        batch = update._columns(batch)
        true = batch.extra["mark:true_B"] == 1
        reward_BK = torch.zeros(len(batch), 3, requires_grad=True)
        update._nll(batch, reward_BK).sum().backward()
    assert reward_BK.grad is not None
    assert (reward_BK.grad[true] != 0).tolist() == [[True, False, False]]
    assert (reward_BK.grad[~true] != 0).tolist() == [[False, True, False]]


def test_a_tie_can_be_half_a_win_for_both(tmp_path: Path) -> None:
    with open_phase(experiment(tmp_path / "events.jsonl", EVENTS[1:2], {"ties": "half"})) as loop:
        batch = loop.hooks.rollout(loop.ctx)
        r_B = hookline.read_last(loop.ctx.stats(batch, want=("reward",))["reward"], batch.mask_BT).double()
        found = loop.planned.update.component.held_out(loop.ctx.bound(loop.planned.update), batch)
    assert _mean(found["comparison_loss"]) == pytest.approx(float(lk.bradley_terry(r_B[:1] - r_B[1:], 0.5)), abs=1e-4)


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        ({"strength": "weight"}, lambda d: 3 * lk.bradley_terry(d, 0.0)),
        ({"strength": "margin"}, lambda d: lk.bradley_terry(d, 0.0, 1.0)),
        ({"strength": "soft", "strengths": [0.6, 0.8, 0.9]}, lambda d: lk.bradley_terry(d, 0.1)),
        ({"noise": "conservative", "flips": 0.2}, lambda d: lk.bradley_terry(d, 0.2)),
        ({"noise": "robust", "flips": 0.2}, lambda d: lk.bradley_terry(d, 1 - 0.8 / 0.6)),
        ({"noise": "learned"}, lambda d: -torch.log(0.9 * torch.sigmoid(-d) + 0.1 * torch.sigmoid(d))),
    ],
)  # fmt: skip
def test_how_sure_a_comparison_is(tmp_path: Path, options: dict[str, Any], loss: Any) -> None:
    """The second answer won by far (strength 3)."""
    with open_phase(experiment(tmp_path / "events.jsonl", EVENTS[:1], options)) as loop:
        batch = loop.hooks.rollout(loop.ctx)
        r_B = hookline.read_last(loop.ctx.stats(batch, want=("reward",))["reward"], batch.mask_BT).double()
        found = loop.planned.update.component.held_out(loop.ctx.bound(loop.planned.update), batch)
    assert _mean(found["comparison_loss"]) == pytest.approx(float(loss(r_B[:1] - r_B[1:])), abs=1e-4)


def test_a_thumb_up_and_a_thumb_down_of_equal_rewards_are_half_in_order(tmp_path: Path) -> None:
    """A thumb down for the same answer counts ½; those of answers with higher and lower rewards 0 and 1."""
    events = [event({"kind": "thumb", "of": of, "up": up}, n=4) for of, up in ((0, True), (0, False), *((of, False) for of in (1, 2, 3)))]
    with open_phase(experiment(tmp_path / "events.jsonl", events)) as loop:
        batch = loop.hooks.rollout(loop.ctx)
        r_B = hookline.read_last(loop.ctx.stats(batch, want=("reward",))["reward"], batch.mask_BT)
        auc = loop.planned.update.component.held_out(loop.ctx.bound(loop.planned.update), batch)["thumbs_auc"]
    up, downs_N = r_B[batch.extra["up_B"] == 1], r_B[batch.extra["up_B"] == 0]
    same, lower = (float(found.sum()) for found in ((downs_N - up).abs() < 1e-6, downs_N < up - 1e-6))
    assert same == 1
    assert auc.value[auc.ok_B].tolist() == pytest.approx([(lower + 0.5) / 4])


def test_all_that_an_annotator_said_brings_the_prior_of_its_reliability_once(tmp_path: Path) -> None:
    """Of four comparisons, three by ann and one by bob, whose reliabilities are .9: −9 log .9 for each of the two."""
    events = [event({"kind": "comparison", "better": 1}, who=who) for who in ("ann", "bob")]
    events += [event({"kind": "comparison", "better": 0}, prompt=f"q{i}") for i in range(2)]
    with open_phase(experiment(tmp_path / "events.jsonl", events, {"noise": "learned", "centre": 0.0})) as loop:
        batch = loop.hooks.rollout(loop.ctx)
        update = loop.planned.update.component
        said = update._columns(batch)
        assert sorted(batch.extra["answers_B"].tolist()) == [1] * 2 + [3] * 6
        assert float(update.annotators.prior(said).detach().sum()) == pytest.approx(-2 * 9 * math.log(0.9), abs=1e-5)


def test_one_output_is_an_attribute_when_that_is_written_out(tmp_path: Path) -> None:
    with open_phase(experiment(tmp_path / "events.jsonl", EVENTS, {"outputs": "attributes"})) as loop:
        assert loop.step()
