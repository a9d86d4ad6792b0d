"""Objectives on numbers one can check by hand, laws of the shared mathematics, and every option of the family."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

import hookline
from hookline import ExperimentError, HooklineError, kernels
from hookline.loop.api import plan
from hookline.loop.loop import PhaseLoop
from hookline.registry import offers
from hookline_plugins import maths
from hookline_plugins.algorithms.cispo import CISPO
from hookline_plugins.algorithms.dapo import DAPO
from hookline_plugins.algorithms.grpo import GRPO
from hookline_plugins.algorithms.gspo import GSPO
from hookline_plugins.algorithms.policy_gradient import PolicyGradient
from hookline_plugins.algorithms.ppo import PPO
from hookline_plugins.algorithms.sapo import SAPO

Tiny = Callable[..., dict[str, Any]]


# -- objectives by hand

RATIO, ADVANTAGE = (
    torch.tensor([0.5, 0.9, 1.0, 1.25, 1.5, 0.5, 1.5]),
    torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0]),
)


@pytest.mark.parametrize(
    ("algorithm", "gained", "slope"),
    [
        (GRPO(GRPO.Config()), [0.5, 0.9, 1.0, 1.2, 1.2, -0.8, -1.5], [1, 1, 1, 0, 0, 0, -1]),
        (DAPO(DAPO.Config()), [0.5, 0.9, 1.0, 1.25, 1.28, -0.8, -1.5], [1, 1, 1, 1, 0, 0, -1]),
        (PPO(PPO.Config(clip_range=0.1)), [0.5, 0.9, 1.0, 1.1, 1.1, -0.9, -1.5], [1, 1, 1, 0, 0, 0, -1]),
    ],
    ids=["grpo", "dapo-clips-higher", "ppo"],
)
def test_clipped_objectives(algorithm: PolicyGradient, gained: list[float], slope: list[float]) -> None:
    ratio = RATIO.clone().requires_grad_()
    found = algorithm.objective(ratio, ADVANTAGE)
    torch.testing.assert_close(found, torch.tensor(gained))
    [gradient] = torch.autograd.grad(found.sum(), ratio)
    inside = (RATIO - 0.9).abs() > 1e-6  # at a kink of clip_range .1 either slope is right
    torch.testing.assert_close(gradient[inside], torch.tensor(slope, dtype=torch.float32)[inside])


def test_clip_fraction_counts_both_sides_apart() -> None:
    algorithm = GRPO(GRPO.Config(clip_range=0.2, clip_high=0.3))
    outside = algorithm.outside(torch.tensor([0.79, 0.81, 1.29, 1.31]))
    assert outside is not None
    assert outside.tolist() == [True, False, False, True]


def test_cispo_bounds_the_weight_and_keeps_every_gradient() -> None:
    """Slope in log π: sg(clip(ρ)) A, also where PPO's is 0."""
    logprob = RATIO.log().requires_grad_()
    algorithm = CISPO(CISPO.Config(clip_range=0.2, clip_high=0.3))
    found = algorithm.objective(logprob.exp(), ADVANTAGE)
    weight = torch.tensor([0.8, 0.9, 1.0, 1.25, 1.3, 0.8, 1.3])
    torch.testing.assert_close(found, weight * ADVANTAGE * RATIO.log())
    [gradient] = torch.autograd.grad(found.sum(), logprob)
    torch.testing.assert_close(gradient, weight * ADVANTAGE)


def test_sapo_s_gate() -> None:
    """f(ρ) = σ(τ(ρ−1))·4/τ: 2/τ with slope 1 at ρ = 1; τ by the sign of A."""
    ratio = RATIO.double().requires_grad_()
    found = SAPO(SAPO.Config(tau_pos=1.0, tau_neg=2.0)).objective(ratio, ADVANTAGE.double())
    assert found[2].item() == pytest.approx(2.0)
    assert found[4].item() == pytest.approx(4 / (1 + 2.718281828459045**-0.5))
    assert found[5].item() == pytest.approx(-2 / (1 + 2.718281828459045))
    [gradient] = torch.autograd.grad(found.sum(), ratio)
    assert gradient[2].item() == pytest.approx(1.0)
    s = 1 / (1 + 2.718281828459045)
    assert gradient[5].item() == pytest.approx(-4 * s * (1 - s)), "fading, not 0"


def test_gspo_s_ratio_is_a_mean_over_the_answer() -> None:
    mask = torch.tensor([[True, True, True, True], [True, False, True, False]])
    log_ratio = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 9.0, 0.1, 9.0]])
    mb: Any = SimpleNamespace(batch=SimpleNamespace(mask_BT=mask), __getitem__=None)
    algorithm = GSPO(GSPO.Config())
    algorithm.acts = lambda _: maths.first_true(mask)  # type: ignore[method-assign]
    torch.testing.assert_close(algorithm.joined(log_ratio, mb)[:, 0], torch.tensor([0.25, 0.3]))
    found = algorithm.objective(torch.tensor([1.0003, 1.01, 0.99]), torch.tensor([1.0, 1.0, -2.0]))
    torch.testing.assert_close(found, torch.tensor([1.0003, 1.0004, -2 * 0.9997]))


# -- the shared mathematics

Rows = st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.integers(0, 3)), min_size=1, max_size=12)


@given(Rows)
def test_group_statistics_are_those_of_each_group_alone(rows: list[tuple[float, int]]) -> None:
    x, group = torch.tensor([r for r, _ in rows]), torch.tensor([g for _, g in rows])
    mean, std = maths.group_mean(x, group), maths.group_std(x, group)
    white, left = maths.group_whiten(x, group), maths.leave_one_out(x, group)
    for i in range(len(rows)):
        own = x[group == group[i]].double()
        others = own.sum() - x[i].double()
        n = len(own)
        assert mean[i].item() == pytest.approx(own.mean().item(), abs=1e-3)
        assert std[i].item() == pytest.approx(own.std().item() if n > 1 else 0.0, abs=1e-3)
        assert left[i].item() == pytest.approx((x[i] - others / (n - 1)).item() if n > 1 else 0.0, abs=2e-3)
        if bool((own == own[0]).all()):
            assert white[i].item() == 0.0, "no spread, no advantage: exactly"
            assert left[i].item() == 0.0
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(maths.leave_one_out(x[order], group[order]), left[order], atol=1e-4, rtol=0)


Table = st.integers(1, 4).flatmap(
    lambda b: st.integers(1, 7).flatmap(
        lambda t: st.tuples(
            st.lists(st.lists(st.floats(-5, 5, width=32), min_size=t, max_size=t), min_size=b, max_size=b),
            st.lists(st.lists(st.booleans(), min_size=t, max_size=t), min_size=b, max_size=b),
        )
    )
)


@given(Table, st.sampled_from([1.0, 0.9, 0.0]))
def test_reward_to_go_is_gae_without_a_critic(table: tuple[list[list[float]], list[list[bool]]], gamma: float) -> None:
    mask = torch.tensor(table[1])
    reward = torch.where(mask, torch.tensor(table[0]), 0.0)
    theirs, _ = kernels.gae(reward, torch.zeros_like(reward), mask=mask, gamma=gamma, lam=1.0)
    torch.testing.assert_close(maths.reward_to_go(reward, mask, gamma), theirs, atol=1e-4, rtol=0)


@given(Table)
def test_whitening(table: tuple[list[list[float]], list[list[bool]]]) -> None:
    x, mask = torch.tensor(table[0]), torch.tensor(table[1])
    white = maths.whiten(torch.where(mask, x, torch.nan), mask)
    assert float(white[~mask].abs().sum()) == 0.0
    if int(mask.sum()) > 1 and float(x[mask].double().std(correction=0)) > 1e-3:
        assert white[mask].double().mean().item() == pytest.approx(0.0, abs=1e-4)
        assert white[mask].double().std(correction=0).item() == pytest.approx(1.0, abs=1e-3)
    shifted = maths.whiten(x, mask, shift=False)
    assert bool((shifted * torch.where(mask, x, 0.0) >= 0).all()), (
        "without a shift no sign changes, but to 0 by underflow"
    )


@given(Table, st.integers(1, 4), st.sampled_from(["ngram", "random", "perplexity"]))
def test_macros_cut_every_row_and_lose_nothing(
    table: tuple[list[list[float]], list[list[bool]]], n: int, kind: str
) -> None:
    x, mask = torch.tensor(table[0]), torch.tensor(table[1])
    first = {
        "ngram": lambda: maths.macro_ngram(mask, n),
        "random": lambda: maths.macro_random(mask, n, [torch.Generator().manual_seed(row) for row in range(len(mask))]),
        "perplexity": lambda: maths.macro_perplexity(-x.abs(), mask, n),
    }[kind]()
    assert not bool((first & ~mask).any())
    assert torch.equal(first.any(1), mask.any(1)), "an answer begins with an action"
    assert not bool((maths.first_true(mask) & ~first).any())
    size = maths.segment_sum(mask.float(), first, mask)
    assert float(size.max()) <= n
    if n == 1:
        assert torch.equal(first, mask)
        assert torch.equal(maths.segment_sum(x, first, mask), torch.where(mask, x, 0.0))
    sums = maths.segment_sum(torch.where(mask, x, torch.nan), first, mask)
    torch.testing.assert_close(sums.sum(1), torch.where(mask, x, 0.0).sum(1), atol=1e-4, rtol=0)
    spread = maths.segment_spread(sums, first, mask)
    for b in range(len(x)):
        here = 0.0
        for t in range(x.shape[1]):
            here = float(sums[b, t]) if first[b, t] else here
            assert float(spread[b, t]) == (here if mask[b, t] else 0.0)


def test_a_macro_goes_on_while_its_perplexity_falls() -> None:
    mask = torch.tensor([[True] * 6])
    logprobs = torch.tensor([[-2.0, -1.0, -0.5, -3.0, -3.0, -0.1]])
    assert maths.macro_perplexity(logprobs, mask, 9).tolist() == [[True, False, False, True, False, False]]
    assert maths.macro_perplexity(logprobs, mask, 2).tolist() == [[True, False, True, True, False, True]]


def test_a_huge_ratio_stays_finite() -> None:
    log_ratio = torch.tensor([-500.0, 500.0], requires_grad=True)
    ratio = maths.bounded_exp(log_ratio)
    ratio.sum().backward()  # type: ignore[no-untyped-call]
    assert bool(torch.isfinite(ratio).all())
    assert log_ratio.grad is not None
    assert log_ratio.grad.tolist() == [0.0, 0.0]


# -- what is refused before anything is built


def problems(experiment: dict[str, Any]) -> str:
    with pytest.raises(HooklineError) as err:
        plan(experiment)
    return str(err.value)


def test_what_cannot_work_is_refused(tiny: Tiny, shelf: Path) -> None:
    one = {"use": "generate", "prompts": str(shelf / "prompts.jsonl"), "rows": 4, "max_new_tokens": 6}
    own: dict[str, Any] = {"advantage": None}
    for use in ("grpo", "rloo", "dr-grpo", "dapo", "gspo", "cispo", "sapo", "reinforce-plus-plus-baseline"):
        said = problems(tiny(rollout=one, update=use, **own))
        assert f"'{use}' needs several samples per prompt" in said
    said = problems(tiny(rollout=one, update={"use": "reinforce", "baseline": "group"}, **own))
    assert "'reinforce' needs several samples" in said
    plan(tiny(rollout=one, update="reinforce", **own))
    said = problems(tiny(update="remax", **own))
    assert "'remax' needs a greedy answer" in said
    read = {"use": "dataset", "path": str(shelf / "prompts.jsonl")}
    assert "log-probs" in problems(tiny(rollout=read, update="a2c", **own))
    said = problems(tiny(update={"use": "grpo", "kl_estimator": "k1"}, **own))
    assert "k1" in said
    assert "0 on average" in said
    assert "kl-penalty" in said
    said = problems(tiny(update={"use": "grpo", "kl_loss": 0.1}, wrap="kl-penalty", **own))
    assert "both penalise the KL" in said
    plan(tiny(update={"use": "grpo"}, wrap="kl-penalty", **own))
    said = problems(tiny(update={"use": "ppo", "ptx": {"path": "nowhere.jsonl"}}, **own))
    assert "nowhere.jsonl" in said
    said = problems(tiny(update={"use": "ppo", "macro": {"kind": "ngrams"}}, **own))
    assert "macro" in said


def test_greedy_answers_are_not_learned_from_as_if_drawn(tiny: Tiny, tmp_path: Path) -> None:
    experiment = tiny(update="grpo", advantage=None)
    experiment["phases"][0]["rollout"]["greedy"] = True
    with pytest.raises(ExperimentError, match="greedy answers"):
        hookline.run(experiment, out=tmp_path / "run")


def refused(experiment: dict[str, Any], tmp_path: Path, words: str) -> None:
    with pytest.raises(ExperimentError, match=words):
        hookline.run(experiment, out=tmp_path / "refused")


def test_weights_per_token_do_not_meet_actions_of_several_tokens(tiny: Tiny, tmp_path: Path) -> None:
    """A macro reads its first token's advantage: the later tokens' weights would be lost."""
    for update in ("rloo", "gspo", {"use": "grpo", "macro": {"n": 2}}):
        wrap: list[Any] = ["replay", "importance-weights"]
        refused(tiny(update=update, advantage=None, wrap=wrap), tmp_path, "level: sequence")
    wrap = ["replay", {"use": "importance-weights", "level": "sequence"}]
    hookline.run(tiny(update="rloo", advantage=None, wrap=wrap), out=tmp_path / "sequence")
    update = {"use": "rloo", "macro": {"kind": "ngram", "n": 1}}
    hookline.run(tiny(update=update, advantage=None, wrap=["replay", "importance-weights"]), out=tmp_path / "token")


@pytest.mark.parametrize("use", ["grpo", "ppo", "reinforce"])
def test_an_opponent_s_answers_are_not_learned_from_as_one_s_own(tiny: Tiny, tmp_path: Path, use: str) -> None:
    experiment = tiny(update=use, advantage=None)
    experiment["phases"][0]["rollout"]["use"] = "duel"
    refused(experiment, tmp_path, "opponent's answers")


@pytest.mark.parametrize("advantage", [None, "gae", "reward-to-go"])
def test_a_pause_in_an_episode_is_not_its_end(tmp_path: Path, advantage: str | None) -> None:
    task = "builtin:cliff"
    phase: dict[str, Any] = {
        "name": "rl", "rollout": {"use": "episodes", "task": task, "rows": 2, "turns": 1}, "update": "ppo", "steps": 1,
        "wrap": "importance-weights", "advantage": advantage,
    }  # fmt: skip
    experiment: dict[str, Any] = {
        "name": "cliff", "seed": 1, "threads": 1, "tokenizer": {"train": "words", "on": f"{task}/words"},
        "model": {"build": "tabular", "task": task}, "trackers": [],
        "phases": [{key: value for key, value in phase.items() if value is not None}],
    }  # fmt: skip
    refused(experiment, tmp_path, "treats a paused episode as finished")


def test_ptx_text_longer_than_the_context_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": "a b c d e f g h i j"}) + "\n" for _ in range(9)))

    def ppo(length: int) -> dict[str, Any]:
        return tiny(update={"use": "ppo", "ptx": {"path": str(text), "length": length}}, advantage=None, steps=1)

    refused(ppo(32), tmp_path, "lower ptx.length to 31")
    hookline.run(ppo(31), out=tmp_path / "fits")


def test_nash_md_takes_one_step_per_rollout(tiny: Tiny) -> None:
    for more in ({"epochs": 2}, {"minibatches": 2}):
        assert "one optimiser step per rollout" in problems(tiny(update={"use": "nash-md", **more}, advantage=None))


def test_rewards_that_differ_by_rounding_are_equal() -> None:
    """.1 + .2 + .3 in float32 depends on the order; a group of such sums has no best answer, other groups keep theirs."""
    reward = torch.tensor([0.6, 0.6 + 6e-8, 0.6, 0.0, 1e-3, 0.0, 0.0, 1e6, 1e6 + 2])
    group = torch.tensor([4, 4, 4, 7, 7, 1, 1, 0, 0])
    assert reward[0] != reward[1]
    assert maths.group_equal(reward, group).tolist() == [True] * 3 + [False] * 2 + [True] * 2 + [False] * 2
    white = maths.group_whiten(reward, group)
    assert white[[0, 1, 2, 5, 6]].eq(0).all()
    assert white[[3, 4, 7, 8]].ne(0).all()
    ctx: Any = SimpleNamespace(log=lambda *_: None, mean=lambda x: float(x.mean()))
    batch: Any = MagicMock(
        episode_reward_B=reward, reward_B=reward, group_B=group, episode_B=torch.arange(9), rows=lambda keep: keep
    )
    assert torch.equal(DAPO(DAPO.Config()).select(ctx, batch), ~maths.group_equal(reward, group))


# -- swapping, state, ptx


def metrics(experiment: dict[str, Any], out: Path) -> list[dict[str, float]]:
    run = hookline.run(experiment, out=out)
    return [dict(row["metrics"]) for row in run.rows()]


ALL = ["a2c", "cispo", "dapo", "dr-grpo", "grpo", "gspo", "ppo", "reinforce", "reinforce-plus-plus",
       "reinforce-plus-plus-baseline", "remax", "rloo", "sapo"]  # fmt: skip
SHARED = {"policy_loss", "entropy", "approx_kl", "behaviour_gap", "loss", "reward"}


@pytest.mark.parametrize("use", ALL)
def test_one_word_swaps_the_algorithm_and_the_figures_keep_their_names(tiny: Tiny, tmp_path: Path, use: str) -> None:
    experiment = tiny(update={"use": use, "epochs": 2, "minibatches": 2, "kl_loss": 0.1}, advantage=None)
    experiment["phases"][0]["rollout"]["greedy"] = use == "remax"
    rows = metrics(experiment, tmp_path / "run")
    learned = [row for row in rows if "loss" in row]
    assert learned, "some step had a signal"
    for row in learned:
        assert row.keys() >= SHARED | {"kl_loss"}
        assert row["behaviour_gap"] == pytest.approx(1.0, abs=1e-3)


def test_another_advantage_takes_the_place_of_the_own_one(tiny: Tiny, tmp_path: Path) -> None:
    own = metrics(tiny(update="ppo", advantage=None), tmp_path / "own")
    named = metrics(tiny(update="ppo", advantage="gae"), tmp_path / "named")
    other = metrics(tiny(update="ppo", advantage="loo"), tmp_path / "other")
    assert own == named, "ppo's own advantage is gae's"
    assert "value_loss" in own[0]
    assert "value_loss" not in other[0]


def test_ema_survives_a_stop(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = tiny(update={"use": "reinforce", "baseline": "ema"}, advantage=None, steps=4, save={"every": 1})
    whole = metrics(experiment, tmp_path / "whole")
    assert len({row["baseline"] for row in whole}) > 1
    step = PhaseLoop.step

    def dies(loop: PhaseLoop) -> int:
        if loop.phase.scope.step == 2:
            raise RuntimeError("killed")
        return step(loop)

    monkeypatch.setattr(PhaseLoop, "step", dies)
    with pytest.raises(RuntimeError, match="killed"):
        hookline.run(experiment, out=tmp_path / "halves")
    monkeypatch.undo()
    assert metrics(experiment, tmp_path / "halves") == whole


def test_ptx_joins_the_same_optimiser_step(tiny: Tiny, shelf: Path, tmp_path: Path) -> None:
    def ppo(name: str, **options: Any) -> list[dict[str, float]]:
        update = {"use": "ppo", "epochs": 2, "minibatches": 2, **options}
        return metrics(tiny(update=update, advantage=None, steps=3), tmp_path / name)

    rows = str(shelf / "prompts.jsonl")
    alone = ppo("alone")
    assert ppo("zero", ptx={"path": rows, "weight": 0}) == alone, "weight 0 is PPO bit for bit"
    mixed = ppo("mixed", ptx={"path": rows, "weight": 5.0, "rows": 4})
    assert [row["optimiser_steps"] for row in mixed] == [row["optimiser_steps"] for row in alone]
    assert mixed[-1]["ptx_loss"] < mixed[0]["ptx_loss"], "its text becomes likelier"
    few = ppo("few", ptx={"path": rows, "weight": 5.0, "rows": 1})
    assert few[0]["ptx_loss"] > 0, "fewer rows than minibatches"
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": "a b c d e f g h i j"}) + "\n" for _ in range(9)))
    plain = ppo("text", ptx={"path": str(text), "rows": 2, "length": 8})
    assert "ptx_loss" in plain[0]


@pytest.mark.parametrize(
    "macro", [{"kind": k, "n": 3} for k in ("ngram", "random", "perplexity")] + [{"kind": "answer"}]
)
@pytest.mark.parametrize("use", ["ppo", "grpo"])
def test_macros_run_and_repeat(tiny: Tiny, tmp_path: Path, use: str, macro: dict[str, Any]) -> None:
    experiment = tiny(update={"use": use, "macro": macro, "epochs": 2}, advantage=None)
    first = metrics(experiment, tmp_path / "first")
    assert first == metrics(experiment, tmp_path / "again")
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in first)


# -- generate's greedy answers


@pytest.mark.parametrize("cut", [{}, {"top_k": 5}, {"top_p": 0.7}, {"temperature": 0.5}], ids=str)
def test_greedy_rows(tiny: Tiny, shelf: Path, tmp_path: Path, cut: dict[str, Any], plugin: Callable[..., str]) -> None:
    """One more row per prompt, of the likeliest tokens, its log-probs those of the same sampling; none in evaluations."""
    looks = plugin(
        """
        class Looks(Component):
            metrics = (Metric("gap", ""),)
            @hookimpl(wrapper=True)
            def hookline_score(self, ctx, rollout):
                scored = yield
                greedy = [s == "greedy" for s in rollout.source]
                ids = [tuple(rollout.response_ids(i)) for i in range(len(rollout)) if greedy[i]]
                net = ctx.role_named("policy").net
                for i in range(len(rollout)):
                    if greedy[i]:
                        so_far = rollout.prompt_ids(i)
                        for token in rollout.response_ids(i):
                            with torch.no_grad():
                                assert int(net(torch.tensor([so_far])).logits[0, -1].argmax()) == token
                            so_far = [*so_far, token]
                gap = (ctx.stats(rollout).logprobs_BT - rollout.behaviour.logprobs_BT).abs().max()
                ctx.log("gap", float(gap))
                assert greedy == [False, False, True] * 4, greedy
                assert len(set(rollout.group_B.tolist())) == 4
                return scored
        """,
        "looks",
    )
    prompts = str(shelf / "prompts.jsonl")
    experiment = tiny(
        update="remax",
        advantage=None,
        wrap="looks",
        evaluate=[
            {
                "rollout": {"use": "generate", "prompts": prompts, "max_new_tokens": 6, "greedy": True},
                "reward": "length",
            }
        ],
    )
    experiment["phases"][0]["rollout"] |= {"greedy": True, **cut}
    experiment["plugins"].append(looks)
    run = hookline.run(experiment, out=tmp_path / "run")
    for row in list(run.rows())[1:]:
        assert row["metrics"]["gap"] < 1e-4
        assert "baseline" in row["metrics"]
    groups = [sample["group"] for sample in run.evaluations()[0]["samples"]]
    assert len(groups) == len(set(groups)) == 26, "an evaluation has no greedy answers"


# -- learning


def walks(update: dict[str, Any], out: Path, seed: int = 1, **phase: Any) -> float:
    greedy = update["use"] == "remax"
    experiment = {
        "name": "walks", "seed": seed, "threads": 1, "tokenizer": {"train": "words", "on": "builtin:walks/walks"},
        "model": {"build": "tabular", "task": "builtin:walks"},
        "phases": [{
            "name": "rl", "reward": {"use": "task", "task": "builtin:walks"}, "update": update, "steps": 60,
            "rollout": {
                "use": "generate", "prompts": "builtin:walks", "rows": 20, "samples_per_prompt": 8, "max_new_tokens": 10,
                "greedy": greedy,
            },
            "evaluate": [{"prompts": "heldout", "rows": 200, "reward": {"use": "task", "task": "builtin:walks"}}],
            **phase,
        }],
        "trackers": [],
    }  # fmt: skip
    run = hookline.run(experiment, out=out)
    return float(run.rows()[-1]["metrics"]["eval/task"])


@pytest.mark.parametrize("use", [pytest.param(use, marks=[] if use == "grpo" else pytest.mark.slow) for use in ALL])
def test_the_walks_are_learned(tmp_path: Path, use: str) -> None:
    """With the settings that each file's docstring names."""
    file = next(offer.target for offer in offers.offers() if (offer.kind, offer.name) == ("update", use)).split(":")[0]
    shown = re.search(r"^ +update: ({.*?})", importlib.import_module(file).__doc__ or "", re.M)
    assert shown is not None
    update = yaml.safe_load(shown[1])
    if use == "reinforce-plus-plus-baseline":  # shares a file
        update["use"] = use
    assert update["use"] == use
    assert walks(update, tmp_path / "run") >= 0.98


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e4, -1e6, 2.0**23])
def test_rewards_with_a_common_offset_differ_where_float32_tells_them_apart(offset: float) -> None:
    """Equal are the same number and its neighbours, wherever they are; two spacings are a difference."""
    least = torch.tensor(offset)
    for _ in range(2):
        least = torch.nextafter(least, torch.tensor(torch.inf))
    reward, group = torch.stack([torch.tensor(offset), least]), torch.tensor([0, 0])
    assert not maths.group_equal(reward, group).any()
    assert maths.group_whiten(reward, group, floor=0.0).ne(0).all()
    assert maths.group_equal(reward[[0, 0]], group).all()
