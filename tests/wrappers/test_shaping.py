"""What stands around rewards and advantages, against definitions and exact answers."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_rows import Ctx, around, made, rows
from pydantic import ValidationError

from hookline import kernels
from hookline_plugins.rewards.format import Format
from hookline_plugins.rewards.overlong import Overlong
from hookline_plugins.wrappers.clip_reward import ClipReward
from hookline_plugins.wrappers.kl_penalty import KLPenalty
from hookline_plugins.wrappers.normalise import Normalise
from hookline_plugins.wrappers.unfinished import Unfinished
from hookline_plugins.wrappers.whiten import Whiten

MASK = [[1, 0, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0]]
GROUP = [4, 4, 8, 8]


def spread(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def score(component: Any, scored: Any, ctx: Ctx | None = None) -> Any:
    return around(component, "hookline_score", scored, ctx)


# -- whiten


def whitened(**options: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    scored = rows(torch.zeros(4, 3), GROUP, MASK)
    x = scored.advantaged(spread(4, 3) * scored.mask_BT)
    white = around(made(Whiten, **options), "hookline_advantage", x).advantage_BT
    assert white[~x.mask_BT].eq(0).all()
    return x.advantage_BT, white, x.mask_BT


def test_whitening_over_the_batch_has_mean_0_and_std_1_over_chosen_tokens() -> None:
    x, white, mask = whitened()
    assert float(white[mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(white[mask].std(correction=0)) == pytest.approx(1, abs=1e-6)
    x, white, mask = whitened(shift=False)
    torch.testing.assert_close(white, x / x[mask].std(correction=0))


def test_whitening_by_group() -> None:
    x, white, mask = whitened(over="group")
    for one in (slice(0, 2), slice(2, 4)):
        tokens = white[one][mask[one]]
        assert float(tokens.mean()) == pytest.approx(0, abs=1e-6)
        assert float(tokens.std(correction=0)) == pytest.approx(1, abs=1e-6)
    x, white, mask = whitened(over="group", shift=False)
    torch.testing.assert_close(white[:2], x[:2] / x[:2][mask[:2]].std(correction=0))


@pytest.mark.parametrize("over", ["batch", "group"])
def test_advantages_that_are_all_equal_are_not_blown_up(over: str) -> None:
    scored = rows(torch.zeros(4, 3), GROUP, MASK)
    same = scored.advantaged(torch.full((4, 3), 0.7) * scored.mask_BT)
    assert around(made(Whiten, over=over), "hookline_advantage", same).advantage_BT.eq(0).all()


# -- normalise


def test_running_normalisation_knows_all_answers_so_far_and_survives_a_save() -> None:
    one = made(Normalise, over="running")
    seen: list[torch.Tensor] = []
    for step in range(6):
        batch = rows(spread(4, 3, seed=step) * 100 + 1000, GROUP, MASK)
        batch = batch.with_reward(batch.reward_BT * batch.mask_BT)
        seen.append(batch.reward_B.double())
        everything = torch.cat(seen)
        said = score(one, batch).reward_B
        by_hand = (batch.reward_B.double() - everything.mean()) / everything.std(correction=0)
        torch.testing.assert_close(said.double(), by_hand, atol=1e-4, rtol=1e-4)
        again = made(Normalise, over="running")
        again.load_state_dict(json.loads(json.dumps(one.state_dict())))
        assert again.state_dict() == one.state_dict()
        one = again


def test_the_first_batch_freezes_and_batch_and_group_do_not_remember() -> None:
    a, b = rows(spread(4, 3), GROUP), rows(spread(4, 3, seed=9) + 40, GROUP)
    first = made(Normalise)
    score(first, a)
    frozen = first.state_dict()
    torch.testing.assert_close(
        score(first, b).reward_B, (b.reward_B - a.reward_B.mean()) / a.reward_B.std(correction=0)
    )
    assert first.state_dict() == frozen
    for over, parts in (("batch", [slice(0, 4)]), ("group", [slice(0, 2), slice(2, 4)])):
        component = made(Normalise, over=over)
        score(component, a)
        said = score(component, b).reward_B
        for part in parts:
            assert float(said[part].mean()) == pytest.approx(0, abs=1e-5)
            assert float(said[part].std(correction=0)) == pytest.approx(1, abs=1e-4)
        assert component.state_dict()["count"] == 0


def test_without_shift_rewards_keep_their_sign_and_where_they_stand() -> None:
    batch = rows(spread(4, 3), GROUP)
    said = score(made(Normalise, over="batch", shift=False), batch).reward_BT
    torch.testing.assert_close(said, batch.reward_BT / batch.reward_B.std(correction=0))


@pytest.mark.parametrize("over", ["first", "running", "batch", "group"])
def test_equal_rewards_have_no_scale(over: str) -> None:
    said = score(made(Normalise, over=over), rows(torch.full((4, 3), 7.0), GROUP)).reward_B
    assert said.abs().max() < 1e-5


def test_evaluations_neither_use_nor_move_the_memory(tiny_run: Any, shelf: Path, tmp_path: Path) -> None:
    judged = [{"every": 1, "prompts": str(tmp_path / "prompts.jsonl"), "rows": 3, "reward": "length"}]
    phase = {"reward": "tokens", "plugins": (str(shelf / "tokens.py"),), "wrap": [{"use": "normalise", "over": "running"}]}
    plain, watched = tiny_run(**phase), tiny_run(**phase, evaluate=judged)
    own = [{k: v for k, v in row.items() if not k.startswith("eval/")} for row in watched if "reward" in row]
    assert own == plain
    raw = [row["eval/length"] for row in watched]
    assert all(value == pytest.approx(round(value * 3) / 3) for value in raw), "whole tokens: not normalised"


# -- clip, unfinished


def test_clipping_an_answer_s_sum_and_each_token() -> None:
    batch = rows([[3.0, 0.0, -1.0], [0.5, 0.0, 0.0], [-4.0, -4.0, 9.5], [0.0, -2.0, 0.0]], mask=MASK)
    ctx = Ctx()
    said = score(made(ClipReward, limit=1.0), batch, ctx)
    assert said.reward_B.tolist() == pytest.approx([1.0, 0.5, 1.0, 0.0]), "the last row's reward is on a skipped token"
    assert ctx.figures["reward_clipped"] == 0.5
    assert said.reward_BT[2].tolist() == [-4.0, -4.0, 9.0], "the difference is paid on the last chosen token"
    said = score(made(ClipReward, limit=1.0, each="token"), batch)
    assert torch.equal(said.reward_BT, batch.reward_BT.clamp(-1, 1))


def test_a_cut_answer_s_reward_is_replaced_not_lowered() -> None:
    batch = rows(torch.full((4, 3), 10.0), mask=MASK, finish=["length", "stop", "length", "recorded"])
    said = score(made(Unfinished, reward=-1.0), batch).reward_BT
    assert said[0].tolist() == [0, 0, -1]
    assert said[2].tolist() == [0, 0, -1]
    assert torch.equal(said[[1, 3]], batch.reward_BT[[1, 3]])


# -- rewards of length and form


def test_overlong_is_dapo_s_equation_13() -> None:
    mask = [[1] * n + [0] * (10 - n) for n in range(1, 11)]
    said = made(Overlong, longest=8, buffer=4).hookline_reward(rows(torch.zeros(10, 10), mask=mask))
    assert said.tolist() == [0, 0, 0, 0, -0.25, -0.5, -0.75, -1, -1, -1]
    with pytest.raises(ValidationError, match="more than its longest answer"):
        made(Overlong, longest=3, buffer=4)


def test_format_matches_the_whole_answer_or_a_part() -> None:
    batch = rows(torch.zeros(3, 2), tokens=torch.tensor([[11, 7], [7, 11], [5, 5]]), finish=["length"] * 3)
    assert made(Format, pattern="11 .*").hookline_reward(batch).tolist() == [1, 0, 0]
    assert made(Format, pattern="11", whole=False).hookline_reward(batch).tolist() == [1, 1, 0]
    with pytest.raises(ValidationError, match="is not a regular expression"):
        made(Format, pattern="(")


# -- the KL in the reward

P = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
REF = torch.tensor([0.25, 0.3, 0.25, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_price_is_the_estimator_on_every_chosen_token(estimator: str) -> None:
    own, reference = -spread(4, 3).abs(), -spread(4, 3, seed=8).abs()
    batch = rows(torch.zeros(4, 3), GROUP, MASK)
    ctx = Ctx(policy=own, reference=reference)
    said = score(made(KLPenalty, beta=0.3, estimator=estimator), batch, ctx)
    d = own - reference
    wanted = {"k1": d, "k2": d.square() / 2, "k3": torch.expm1(-d) + d}[estimator]
    torch.testing.assert_close(said.reward_BT, torch.where(batch.mask_BT, -0.3 * wanted, 0.0))
    torch.testing.assert_close(said.terms["kl_penalty"], said.reward_B)
    assert ctx.figures["kl"] == pytest.approx(float((d * batch.mask_BT).sum(1).mean()), rel=1e-5)


def test_the_likeliest_answers_are_priced_but_say_nothing_of_the_kl() -> None:
    """Σ log π/π_ref of a greedy row is no draw of the KL: neither the figure nor β hears of it."""
    own = torch.tensor([[-1.0, -1.0], [-0.5, -0.5], [-1.0, 0.0]])
    drawn = rows(torch.zeros(3, 2))
    batch = replace(drawn, source=("policy", "greedy", "policy"))
    ctx, penalty = Ctx(policy=own, reference=torch.full((3, 2), -2.0)), made(KLPenalty, target=2.5, horizon=2)
    said = around(penalty, "hookline_score", batch, ctx)
    assert ctx.figures["kl"] == pytest.approx((2 + 3) / 2)
    assert penalty.beta == pytest.approx(0.1), "on target"
    torch.testing.assert_close(said.reward_B, -0.1 * torch.tensor([2.0, 3.0, 3.0]))


def gradients(p: torch.Tensor, estimator: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(what a policy gradient follows with the estimator in the reward, its gradient as a loss), summed over all actions."""
    logits = p.log().requires_grad_()
    logp = logits.log_softmax(0)
    k = kernels.kl_estimate(logp, REF.log(), estimator=estimator)
    [reward] = torch.autograd.grad((p * logp * k.detach()).sum(), logits, retain_graph=True)
    [loss] = torch.autograd.grad((p * k).sum(), logits)
    return reward, loss


def test_the_table_of_gradients_in_the_docstring() -> None:
    """Every entry, summed over all actions: which estimator pulls where, in the reward and as a loss."""
    logits = P.log().requires_grad_()
    pi = logits.softmax(0)
    [reverse] = torch.autograd.grad((pi * (pi / REF).log()).sum(), logits, retain_graph=True)
    [forward] = torch.autograd.grad((REF * (REF / pi).log()).sum(), logits)
    for estimator, in_reward, as_loss in (
        ("k1", reverse, torch.zeros(4).double()),
        ("k2", None, reverse),
        ("k3", reverse - forward, forward),
    ):
        reward, loss = gradients(P, estimator)
        torch.testing.assert_close(loss, as_loss, atol=1e-9, rtol=1e-9)
        if in_reward is not None:
            torch.testing.assert_close(reward, in_reward, atol=1e-9, rtol=1e-9)
    near = (REF * torch.tensor([1.01, 0.99, 1.01, 1.0]).double()).log().softmax(0)
    strength = {name: float(gradients(near, name)[0].norm()) for name in ("k1", "k2", "k3")}
    assert max(strength["k2"], strength["k3"]) < 0.02 * strength["k1"]


def test_as_a_number_k1_and_k3_are_unbiased_and_k2_is_not() -> None:
    near, far = torch.tensor([[0.97, 0.01, 0.01, 0.01], [0.05, 0.4, 0.3, 0.25]], dtype=torch.float64)
    exact = float((near * (near / far).log()).sum())
    mean = {
        k: float((near * kernels.kl_estimate(near.log(), far.log(), estimator=k)).sum()) for k in ("k1", "k2", "k3")
    }
    assert mean["k1"] == pytest.approx(exact, abs=1e-9)
    assert mean["k3"] == pytest.approx(exact, abs=1e-9)
    assert abs(mean["k2"] - exact) > 0.1


MODULES = (
    "advantages.gae advantages.group_relative advantages.leave_one_out advantages.reward_to_go wrappers.whiten wrappers.normalise "
    "wrappers.clip_reward wrappers.potential wrappers.kl_penalty wrappers.unfinished wrappers.importance_weights wrappers.replay "
    "rewards.overlong rewards.format"
).split()


@pytest.mark.parametrize("name", MODULES)
def test_each_file_cites_its_paper_and_says_what_is_healthy(name: str) -> None:
    text = importlib.import_module(f"hookline_plugins.{name}").__doc__ or ""
    assert re.search(r"(19|20)\d\d", text), f"{name} cites nothing"
    assert "Healthy" in text, f"{name} does not say how its figures look when all is well"
