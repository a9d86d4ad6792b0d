"""Rows of older weights: importance weights against enumerated expectations, decoupled PPO, and what a replay brings back."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from made_rows import Ctx, answers, around, made, rows
from pydantic import ValidationError

import hookline
from hookline import ExperimentError, Sampling, concat
from hookline_plugins.maths import clipped
from hookline_plugins.wrappers.importance_weights import ImportanceWeights, cut, weights
from hookline_plugins.wrappers.replay import Replay, packed, unpacked

# -- importance weights


def corrected(own: torch.Tensor, drawn: torch.Tensor, mask: Any = None, **options: Any) -> tuple[torch.Tensor, Ctx]:
    scored = rows(torch.zeros(own.shape), mask=mask, logprobs_BT=drawn)
    ctx = Ctx(policy=own)
    ones = scored.advantaged(scored.mask_BT.float())
    return around(made(ImportanceWeights, **options), "hookline_advantage", ones, ctx).advantage_BT, ctx


def test_on_the_policy_s_own_rows_nothing_changes() -> None:
    own = -torch.rand(3, 4)
    for level in ("token", "sequence"):
        said, ctx = corrected(own, own, level=level)
        assert said.eq(1).all()
        assert ctx.figures == {"importance_mean": 1.0, "importance_ess": 1.0, "importance_cut": 0.0}


def test_truncating_and_masking_by_token_and_by_sequence() -> None:
    drawn = torch.tensor([[0.5, 0.5], [0.25, 0.5], [0.5, 0.9]]).log()
    own = torch.tensor([[0.5, 0.25], [0.75, 0.5], [0.1, 0.9]]).log()  # ratios 1, ½ | 3, 1 | ⅕, 1
    mask = [[1, 1], [1, 1], [1, 0]]
    said, ctx = corrected(own, drawn, mask)
    torch.testing.assert_close(said, torch.tensor([[1, 0.5], [2, 1], [0.2, 0]]))
    assert ctx.figures["importance_cut"] == pytest.approx(1 / 5)
    raw = torch.tensor([1, 0.5, 3, 1, 0.2])
    assert ctx.figures["importance_mean"] == pytest.approx(float(raw.mean()), rel=1e-5)
    assert ctx.figures["importance_ess"] == pytest.approx(float(raw.sum() ** 2 / (5 * raw.square().sum())), rel=1e-5)
    said, _ = corrected(own, drawn, mask, cut="mask", low=0.4)
    torch.testing.assert_close(said, torch.tensor([[1, 0.5], [0, 1], [0, 0]]))
    said, ctx = corrected(own, drawn, mask, level="sequence", low=0.25)
    torch.testing.assert_close(said, torch.tensor([[0.5, 0.5], [2, 2], [0.25, 0]]))
    assert ctx.figures["importance_cut"] == pytest.approx(2 / 3)


def test_far_policies_give_no_infinity() -> None:
    said, ctx = corrected(torch.zeros(2, 400), torch.full((2, 400), -90.0), level="sequence")
    assert said.eq(2).all()
    assert all(torch.tensor(list(ctx.figures.values())).isfinite())


def test_bounds_that_leave_every_weight_at_1_are_refused() -> None:
    with pytest.raises(ValidationError, match="makes every weight 1"):
        made(ImportanceWeights, low=1.0, high=1.0)


def two_step(p: torch.Tensor) -> dict[tuple[int, int], torch.Tensor]:
    """Chance of every answer of two tokens, the second drawn by what the first was."""
    return {(a, b): p[0, a] * p[1 + a, b] for a in range(2) for b in range(2)}


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_uncut_weights_undo_the_sampler_in_expectation(level: str) -> None:
    """Over all answers: E_μ[w A ∇log π] is the policy's own gradient, by sequence exactly; by token up to its states."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(3, 2, generator=generator, dtype=torch.float64).requires_grad_()
    sampler = torch.randn(3, 2, generator=generator, dtype=torch.float64).softmax(1)
    worth = {(0, 0): 1.0, (0, 1): -2.0, (1, 0): 0.5, (1, 1): 3.0}
    policy = logits.softmax(1)
    [exact] = torch.autograd.grad(sum(policy_p * worth[y] for y, policy_p in two_step(policy).items()), logits)
    logp = logits.log_softmax(1)
    mean = torch.zeros(3, 2, dtype=torch.float64)
    biased = torch.zeros(3, 2, dtype=torch.float64)
    for (a, b), chance in two_step(sampler).items():
        own = torch.stack([logp[0, a], logp[1 + a, b]])
        drawn = torch.stack([sampler[0, a].log(), sampler[1 + a, b].log()])
        w = weights((own - drawn).detach()[None], torch.ones(1, 2, dtype=torch.bool), level)[0]
        [step] = torch.autograd.grad((w * own).sum() * worth[a, b], logits, retain_graph=True)
        [raw] = torch.autograd.grad(own.sum() * worth[a, b], logits, retain_graph=True)
        mean += chance.detach() * step
        biased += chance.detach() * raw
    error, without = float((mean - exact).norm()), float((biased - exact).norm())
    if level == "sequence":
        assert error < 1e-12
    assert error < without


def test_weights_on_the_advantage_are_decoupled_ppo() -> None:
    """w · min(ρA, clip(ρ)A) = min(ρ wA, clip(ρ) wA) for w ≥ 0, value and gradient (Hilton et al. 2022, eq. 3)."""
    generator = torch.Generator().manual_seed(0)
    new = torch.randn(500, generator=generator, dtype=torch.float64).mul_(0.3).requires_grad_()
    proximal, behaviour, advantage = torch.randn(3, 500, generator=generator, dtype=torch.float64)
    w = cut((proximal - behaviour).exp(), 0.0, 2.0, "truncate")
    ratio = (new - proximal * 0.1).exp()
    ours = clipped(ratio, w * advantage, 0.2, 0.2)
    theirs = w * torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    [a] = torch.autograd.grad(ours.sum(), new, retain_graph=True)
    [b] = torch.autograd.grad(theirs.sum(), new)
    torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


# -- replay


def groups_of(batch: Any) -> list[int]:
    return list(dict.fromkeys(batch.group_B.tolist()))


def fresh(step: int, groups: int = 3, size: int = 2, T: int = 3, **more: Any) -> Any:
    B = groups * size
    group = [step * 100 + i // size for i in range(B)]
    return answers(B, T, group, version=step, first=step * 1000, **more)


def test_whole_groups_come_back_once_and_never_beside_themselves() -> None:
    replay, ctx = made(Replay, capacity=5, groups=2), Ctx()
    for step in range(6):
        ctx.policy.version = step
        batch = around(replay, "hookline_rollout", fresh(step), ctx)
        counts = Counter(batch.group_B.tolist())
        assert set(counts.values()) == {2}, "whole groups, each once"
        assert groups_of(batch)[:3] == [step * 100 + i for i in range(3)], "the fresh ones first"
        back = groups_of(batch)[3:]
        assert len(back) == (2 if step else 0)
        assert all(group < step * 100 for group in back)
        assert len(replay.stored) == min(5, 3 * (step + 1)), "the oldest make room"
        if step:
            ages = [step - group // 100 for group in back]
            assert ctx.figures["replay_age"] == sum(ages) / len(ages)
            assert ctx.figures["replay_share"] == pytest.approx(4 / 10)
    assert list(replay.stored) == [401, 402, 500, 501, 502]


def test_a_row_comes_back_as_it_was_drawn() -> None:
    replay, ctx = made(Replay, groups=9), Ctx()
    first = fresh(0, T=5, logprobs_BT=-torch.rand(6, 5)).with_extra(weight_B=torch.rand(6))
    around(replay, "hookline_rollout", first, ctx)
    second = fresh(1, T=2).with_extra(weight_B=torch.rand(6))
    batch = around(replay, "hookline_rollout", second, ctx)
    order = torch.cat([(batch.sample_B == sample).nonzero()[0] for sample in first.sample_B])
    again = batch.rows(order)
    for name, tensor in first.tensors().items():
        assert torch.equal(again.tensors()[name], tensor), name
    assert again.records == first.records
    assert again.behaviour.sampling == first.behaviour.sampling


def test_as_often_as_two_epochs() -> None:
    """Everything stored comes back next step: after the last step each row was seen twice, but for the newest's."""
    replay, ctx = made(Replay, capacity=3, groups=3), Ctx()
    seen: Counter[int] = Counter()
    for step in range(5):
        seen.update(around(replay, "hookline_rollout", fresh(step), ctx).sample_B.tolist())
    twice = {sample for sample, count in seen.items() if count == 2}
    assert twice == {step * 1000 + i for step in range(4) for i in range(6)}
    assert set(seen.values()) == {1, 2}


def test_no_fresh_rows_and_nothing_stored() -> None:
    replay, ctx = made(Replay), Ctx()
    none = fresh(0).rows([])
    assert len(around(replay, "hookline_rollout", none, ctx)) == 0
    around(replay, "hookline_rollout", fresh(1), ctx)
    assert len(around(replay, "hookline_rollout", none, ctx)) == 6, "a step without fresh rows still replays"


def test_groups_older_than_the_bound_are_forgotten() -> None:
    replay, ctx = made(Replay, max_age=1, groups=99), Ctx()
    for step in range(5):
        ctx.policy.version = step
        batch = around(replay, "hookline_rollout", fresh(step), ctx)
        assert {group // 100 for group in groups_of(batch)} == {step, max(0, step - 1)}


@pytest.mark.parametrize("choose", ["reward", "advantage"])
def test_the_worthiest_come_back_most(choose: str) -> None:
    replay, ctx = made(Replay, choose=choose, sharpness=3.0, groups=1), Ctx()
    batch = fresh(0, groups=4).scored(torch.zeros(8))
    around(replay, "hookline_rollout", fresh(0, groups=4), ctx)
    worth = torch.arange(4.0).repeat_interleave(2) - 2
    if choose == "reward":
        around(replay, "hookline_score", batch.with_reward(worth[:, None].expand(8, 3) / 3), ctx)
        ranked = [3, 2, 1, 0]
    else:
        around(replay, "hookline_advantage", batch.advantaged(worth), ctx)
        ranked = [0, 1, 3, 2]
    worths = {group: stored.worth for group, stored in replay.stored.items()}
    drawn = Counter(replay._chosen(ctx, worths)[0] for _ in range(4000))
    chance = torch.tensor([rank**-3.0 for rank in (1, 2, 3, 4)])
    for group, p in zip(ranked, chance / chance.sum()):
        assert drawn[group] / 4000 == pytest.approx(float(p), abs=4 * float((p * (1 - p) / 4000) ** 0.5))


def test_rows_drawn_otherwise_are_refused_by_name() -> None:
    replay, ctx = made(Replay), Ctx()
    around(replay, "hookline_rollout", fresh(0), ctx)
    with pytest.raises(
        ExperimentError, match=r"'mine' stores answers drawn with temperature 1, .* now draws with temperature 0\.7"
    ):
        around(replay, "hookline_rollout", fresh(1, sampling=Sampling(temperature=0.7)), ctx)


def test_state_is_the_rows_bit_for_bit() -> None:
    replay, ctx = made(Replay, groups=2), Ctx()
    for step in range(3):
        around(replay, "hookline_rollout", fresh(step, T=2 + step), ctx)
    one = next(iter(replay.stored.values())).rollout
    again = unpacked(json_and_back(packed(one)), one.decode)
    assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in one.tensors().items())
    assert again.behaviour.sampling == one.behaviour.sampling
    earlier = unpacked(json_and_back({**packed(one), "sampling": [0.7, 5, 0.9]}), one.decode)  # as an earlier release saved it
    assert earlier.behaviour.sampling == Sampling(temperature=0.7, top_k=5, top_p=0.9)
    other = made(Replay, groups=2)
    other.setup(ctx)
    other.load_state_dict(replay.state_dict())
    a, b = Ctx(), Ctx()
    x, y = around(replay, "hookline_rollout", fresh(3), a), around(other, "hookline_rollout", fresh(3), b)
    assert x.sample_B.tolist() == y.sample_B.tolist()
    assert all(torch.equal(y.tensors()[name], tensor) for name, tensor in x.tensors().items())
    assert a.figures == b.figures
    assert concat([x, y]).sample_B.shape == (20,)


def json_and_back(tree: dict[str, Any]) -> dict[str, Any]:
    """Plain values go through JSON, as in a checkpoint."""
    plain = json.loads(json.dumps({k: v for k, v in tree.items() if k not in ("tensors", "support")}))
    return {**plain, "tensors": tree["tensors"], "support": tree["support"]}


BREAKS = """
import pathlib
from hookline import Component, hookimpl
class Breaks(Component):
    name = "breaks"
    @hookimpl
    def hookline_reward(self, ctx, rollout):
        if ctx.step == 5 and not pathlib.Path("FLAG").exists():
            pathlib.Path("FLAG").touch()
            raise RuntimeError("the power went out")
        return rollout.token_ids_BT.float().mul(rollout.mask_BT).sum(1) % 7
"""


@pytest.mark.parametrize("choose", ["uniform", "advantage"])
def test_a_run_that_broke_goes_on_with_the_same_replays(tiny_run: Any, tmp_path: Path, choose: str) -> None:
    flag, plugin = tmp_path / "flag", tmp_path / "breaks.py"
    plugin.write_text(BREAKS.replace("FLAG", str(flag)))
    phase = {
        "steps": 8, "reward": "breaks", "save": {"every": 2}, "plugins": (str(plugin),),
        "rollout": {"use": "generate", "prompts": str(tmp_path / "prompts.jsonl"), "rows": 3, "samples_per_prompt": 2,
                    "max_new_tokens": 5, "top_k": 40},
        "wrap": [{"use": "replay", "capacity": 7, "groups": 2, "choose": choose}, "importance-weights"],
    }  # fmt: skip
    with pytest.raises(hookline.PluginError, match="the power went out"):
        tiny_run(out=tmp_path / "broken", **phase)
    again = tiny_run(out=tmp_path / "broken", **phase)
    whole = tiny_run(out=tmp_path / "whole", **phase)
    assert again == whole
    assert {row.get("replay_share") for row in whole[1:]} == {0.4}
    ends = [(tmp_path / name / "phases/rl/model/model.safetensors").read_bytes() for name in ("broken", "whole")]
    assert ends[0] == ends[1]
