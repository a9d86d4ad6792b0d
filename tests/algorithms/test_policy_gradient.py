"""Every policy gradient against the enumerated one: three words, answers of one to three tokens, all of them counted."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hookline import Advantaged, Behaviour, Rollout, Sampling, Scored, pad_rows
from hookline.loop.loop import PhaseLoop
from hookline.testing import open_phase

END, A, B = 0, 2, 3  # what may be said
PROMPT = [END, 4]
ANSWERS = [
    (END,), *((x, END) for x in (A, B)), *(answer for answer in itertools.product((A, B), (A, B), (END, A, B))),
]  # fmt: skip
PAIRS = list(itertools.product(range(len(ANSWERS)), repeat=2))
EARNED = (
    torch.linspace(-1, 2, len(ANSWERS), dtype=torch.float64).square() + 3.0
)  # far from 0: a baseline has something to do
Tree = Callable[..., PhaseLoop]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """`tree(update, samples=2)`: a phase whose policy is a table over the tree, unevenly filled."""
    data = tmp_path / "words.jsonl"
    data.write_text("".join(json.dumps({"prompt": "s", "completion": c}) + "\n" for c in ("a b", "b a")))
    count, stack = itertools.count(), contextlib.ExitStack()

    def make(update: str | dict[str, Any], *, rows: int = 1, samples: int = 2, **phase: Any) -> PhaseLoop:
        greedy = phase.pop("greedy", False)
        update = {"use": update} if isinstance(update, str) else update
        experiment = {
            "name": "tree", "seed": 3, "tokenizer": {"train": "words", "on": str(data)},
            "model": {"build": "tabular", "context": 8},
            "phases": [{
                "name": "rl", "steps": 50, "reward": "length",
                "rollout": {
                    "use": "generate", "prompts": str(data), "rows": rows, "samples_per_prompt": samples,
                    "max_new_tokens": 3, "greedy": greedy,
                },
                "update": {"lr": 0.1, "grad_clip": 1e9, **update}, **phase,
            }],
            "trackers": [],
        }  # fmt: skip
        loop = stack.enter_context(open_phase(experiment, tmp_path / f"run{next(count)}"))
        fill(loop, "policy", 0)
        return loop

    with stack:
        yield make


def table(loop: PhaseLoop, role: str = "policy") -> torch.nn.Parameter:
    weight: torch.nn.Parameter = loop.phase.roles[role].net.table.weight
    return weight


@torch.no_grad()
def fill(loop: PhaseLoop, role: str, seed: int) -> None:
    """Uneven logits for the three words, and none for the others."""
    weight = table(loop, role)
    weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)))
    weight[[1, 4]] = -1e9
    loop.phase.roles[role].version += 1


def situation(loop: PhaseLoop, answer: tuple[int, ...], t: int) -> int:
    situations = loop.phase.roles["policy"].net.situations
    ids = torch.tensor([[*PROMPT, *answer[:t]]])
    return int(situations.index(ids, torch.arange(ids.shape[1])[None])[0, -1])


def logprob(loop: PhaseLoop, weight: Tensor, answer: tuple[int, ...]) -> list[Tensor]:
    """log p of each token of an answer, from the table itself, in float64."""
    return [
        torch.log_softmax(weight[:, situation(loop, answer, t)].double(), 0)[token] for t, token in enumerate(answer)
    ]


def probability(loop: PhaseLoop, weight: Tensor) -> Tensor:
    return torch.stack([torch.stack(logprob(loop, weight, answer)).sum().exp() for answer in ANSWERS])


def batch_of(loop: PhaseLoop, rows: list[int], group: int, sources: tuple[str, ...] = ("policy",)) -> Scored:
    """Answers by number, so many to a group, with their rewards: the table's last token pays what the answer earned."""
    ids_BT, length_B = pad_rows([ANSWERS[i] for i in rows])
    mask_BT = torch.arange(ids_BT.shape[1]) < length_B[:, None]
    n = len(rows)
    rollout = Rollout(
        prompt_ids_BP=torch.tensor([PROMPT] * n),
        prompt_length_B=torch.full((n,), len(PROMPT)),
        token_ids_BT=ids_BT,
        length_B=length_B,
        mask_BT=mask_BT,
        group_B=torch.arange(n) // group,
        sample_B=torch.arange(n),
        records=({"prompt": "s"},) * n,
        decode=str,
        finish_reason=("stop",) * n,
        source=sources * (n // len(sources)),
    )
    logprobs_BT = loop.ctx.stats(rollout).logprobs_BT
    drawn = Behaviour(logprobs_BT=logprobs_BT, version_BT=torch.zeros_like(ids_BT), sampling=Sampling())
    return replace(rollout, behaviour=drawn).scored(EARNED[rows].float())


def gradient_of(loop: PhaseLoop, batch: Advantaged, role: str = "policy") -> Tensor:
    """What the update would hand to the optimiser, negated: the direction in which it goes."""
    trainer = loop.phase.trainer
    assert trainer is not None
    caught: list[Tensor] = []
    trainer.optimiser.step = lambda share: caught.append(table(loop, role).grad.double().clone()) or 0.0  # type: ignore
    loop.hooks.update(loop.ctx, batch)
    loop.phase.metrics.collect()
    return -caught[0]


def enumerated(
    loop: PhaseLoop, group: int, sources: tuple[str, ...] = ("policy",)
) -> tuple[Advantaged, Tensor, Tensor]:
    """Every group of answers there is, its advantages weighed by how likely it is: (batch, unweighed advantages, weights).

    The mean over rows of such a batch is the expectation, exactly.
    """
    best = max(range(len(ANSWERS)), key=lambda i: -(ANSWERS[i] != greedy_answer(loop)))
    numbers = (
        [i for pair in PAIRS for i in pair] if sources == ("policy",) else [x for i in range(15) for x in (i, best)]
    )
    batch = loop.hooks.advantage(loop.ctx, batch_of(loop, numbers, group, sources))
    p = probability(loop, table(loop).detach())
    weight = torch.tensor([float(p[i] * p[j]) for i, j in PAIRS]) if sources == ("policy",) else p.float()
    weight_B = (weight * len(weight)).repeat_interleave(group).float()
    assert float(weight_B.sum()) == pytest.approx(len(numbers), rel=1e-5)
    weighed = replace(batch, advantage_BT=batch.advantage_BT * weight_B[:, None])
    return weighed, batch.advantage_BT, weight_B


def greedy_answer(loop: PhaseLoop) -> tuple[int, ...]:
    answer: tuple[int, ...] = ()
    while len(answer) < 3 and END not in answer:
        answer = (*answer, int(table(loop)[:, situation(loop, answer, len(answer))].argmax()))
    return answer


def true_gradient(loop: PhaseLoop) -> Tensor:
    """∇ E[reward], by differentiating the sum over all answers."""
    weight = table(loop).detach().double().requires_grad_()
    (probability(loop, weight) @ EARNED).backward()
    assert weight.grad is not None
    return weight.grad


def score_gradient(loop: PhaseLoop, batch: Advantaged, weight_BT: Tensor) -> Tensor:
    """∇ Σ weight · A · log π over a batch's tokens, from the table."""
    weight = table(loop).detach().double().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for row in range(len(batch)):
        answer = tuple(batch.response_ids(row))
        factors = (weight_BT[row] * batch.advantage_BT[row].double()).tolist()
        total = total + sum(f * lp for f, lp in zip(factors, logprob(loop, weight, answer)) if f)
    total.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    return weight.grad


def assert_close(found: Tensor, wanted: Tensor, tolerance: float = 2e-5) -> None:
    assert float(wanted.abs().max()) > 1e-3
    torch.testing.assert_close(found, wanted, atol=tolerance * float(wanted.abs().max()), rtol=0)


UNBIASED = [
    ({"use": "rloo"}, 1.0),
    ({"use": "reinforce", "baseline": "none"}, 1.0),
    ({"use": "reinforce", "baseline": "group"}, 0.5),
    ({"use": "dr-grpo"}, 0.5),
    ({"use": "dr-grpo", "length": 4}, 0.125),
]


@pytest.mark.parametrize(("update", "share"), UNBIASED, ids=str)
def test_the_expected_gradient_is_that_of_the_expected_reward(tree: Tree, update: dict[str, Any], share: float) -> None:
    """`group` and Dr. GRPO include the answer itself in its baseline, which leaves (k−1)/k of it."""
    loop = tree(update)
    batch, _, _ = enumerated(loop, 2)
    assert_close(gradient_of(loop, batch), share * true_gradient(loop))


def test_remax_compares_with_the_greedy_answer_and_does_not_learn_from_it(tree: Tree) -> None:
    loop = tree("remax", samples=1, greedy=True)
    batch, plain_BT, _ = enumerated(loop, 2, ("policy", "greedy"))
    greedy = ANSWERS.index(greedy_answer(loop))
    torch.testing.assert_close(plain_BT[::2, 0], (EARNED - EARNED[greedy]).float(), atol=1e-5, rtol=0)
    assert_close(gradient_of(loop, batch), true_gradient(loop))


def test_an_ema_of_earlier_steps_leaves_the_mean_and_is_saved(tree: Tree) -> None:
    loop = tree({"use": "reinforce", "baseline": "ema", "decay": 0.8})
    component = loop.planned.update.component
    component.load_state_dict({"seen": 2.5})
    batch, plain_BT, _ = enumerated(loop, 2)
    assert_close(gradient_of(loop, batch), true_gradient(loop))
    torch.testing.assert_close(plain_BT[:, 0], batch.reward_B - 2.5, atol=1e-5, rtol=0)
    assert component.state_dict()["seen"] == pytest.approx(0.8 * 2.5 + 0.2 * float(batch.reward_B.mean()))


def whitened(pair: tuple[float, float]) -> tuple[float, float]:
    """GRPO's two advantages, by hand: two numbers lie ±(half their distance) from their mean, s.d. distance/√2."""
    distance = pair[0] - pair[1]
    a = distance / 2 / (abs(distance) / 2**0.5 + 1e-6)
    return a, -a


SAME_ADVANTAGE = ["grpo", "dapo", "gspo", "cispo", "sapo"]


@pytest.mark.parametrize("use", SAME_ADVANTAGE)
def test_the_expected_gradient_is_the_enumerated_one_of_the_same_advantage(tree: Tree, use: str) -> None:
    """GRPO's whitened advantage, averaged over answers, or over tokens; GSPO's ratio of 1/|y| makes it per answer too."""
    loop = tree(use)
    batch, plain_BT, _ = enumerated(loop, 2)
    earned = EARNED.tolist()
    by_hand = torch.tensor([a for i, j in PAIRS for a in whitened((earned[i], earned[j]))])
    torch.testing.assert_close(plain_BT[:, 0].double(), by_hand.double(), atol=1e-5, rtol=0)
    differ_B = (by_hand != 0).double()
    mask = batch.mask_BT.double()
    if use in ("dapo", "cispo"):
        kept = differ_B if use == "dapo" else torch.ones_like(differ_B)
        share_BT = mask * kept[:, None] / (mask * kept[:, None]).sum()
    else:
        share_BT = mask / mask.sum(1, keepdim=True) / len(batch)
    assert_close(gradient_of(loop, batch), score_gradient(loop, batch, share_BT))


@pytest.mark.parametrize("use", ["reinforce-plus-plus", "reinforce-plus-plus-baseline"])
def test_global_whitening_and_a_mean_over_tokens(tree: Tree, use: str) -> None:
    loop = tree(use)
    batch, plain_BT, _ = enumerated(loop, 2)
    mask, earned = batch.mask_BT, EARNED.tolist()
    left = [
        r - (earned[i] + earned[j]) / 2 * use.endswith("baseline") for i, j in PAIRS for r in (earned[i], earned[j])
    ]
    spread = torch.tensor(left, dtype=torch.float64)[:, None].expand(mask.shape)[mask]
    by_hand = (spread - spread.mean()) / spread.std(correction=0)
    torch.testing.assert_close(plain_BT[mask].double(), by_hand, atol=1e-5, rtol=0)
    assert_close(gradient_of(loop, batch), score_gradient(loop, batch, mask.double() / mask.sum()))


@pytest.mark.parametrize("use", ["ppo", "a2c"])
@pytest.mark.parametrize("critic", ["separate", "shared"])
def test_actor_and_critic_at_the_start(tree: Tree, use: str, critic: str) -> None:
    """A new critic says 0, so with λ = 1 the advantage is the return; its own gradient is that of ½(V − R)²."""
    loop = tree({"use": use, "lam": 1.0, "critic": critic, "entropy_bonus": 0.0})
    batch, plain_BT, _ = enumerated(loop, 2)
    mask = batch.mask_BT
    wanted = torch.where(mask, batch.reward_B[:, None], 0.0)
    torch.testing.assert_close(plain_BT, wanted, atol=1e-5, rtol=0)
    assert_close(gradient_of(loop, batch), score_gradient(loop, batch, mask.double() / mask.sum()))
    role = "critic" if critic == "separate" else "policy"
    assert ("critic" in loop.phase.roles) == (critic == "separate")
    trainer = loop.phase.trainer
    name = next(n for n in trainer.parameters if n.startswith(f"{role}/") and "value" in n and n.endswith("bias"))
    caught: list[float] = []
    trainer.optimiser.step = lambda share: caught.append(float(trainer.parameters[name].grad)) or 0.0  # type: ignore
    loop.hooks.update(loop.ctx, batch)
    assert caught[0] == pytest.approx(-0.5 * float(wanted[mask].mean()), rel=1e-4), "value_weight × mean of V − R"


def test_td_lambda_with_values(tree: Tree) -> None:
    """A_t = δ_t + γλ A_{t+1} by hand, with a critic that has learned something; returns are A + V."""
    loop = tree({"use": "a2c", "gamma": 0.9, "lam": 0.7})
    with torch.no_grad():
        head = loop.phase.roles["critic"].heads["value"]
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        loop.phase.roles["critic"].version += 1
    batch = loop.hooks.advantage(loop.ctx, batch_of(loop, list(range(15)), 1))
    value_BT = batch.extra["value_BT"]
    assert float(value_BT.std()) > 0.1
    for row in range(15):
        carry, after = 0.0, 0.0
        for t in reversed(range(int(batch.length_B[row]))):
            value = float(value_BT[row, t])
            carry = float(batch.reward_BT[row, t]) + 0.9 * after - value + 0.9 * 0.7 * carry
            after = value
            assert float(batch.advantage_BT[row, t]) == pytest.approx(carry, abs=1e-4)
            assert float(batch.extra["return_BT"][row, t]) == pytest.approx(carry + value, abs=1e-4)


def test_drawn_gradients_agree_with_the_exact_one_and_baselines_cut_their_variance(tree: Tree) -> None:
    """The same draws under each baseline: means within 3 standard errors of the exact gradient, variance falling."""
    updates = {
        "none": {"use": "reinforce", "baseline": "none"},
        "ema": {"use": "reinforce", "baseline": "ema"},
        "rloo": {"use": "rloo"},
    }
    drawn: dict[str, Tensor] = {}
    for name, update in updates.items():
        loop = tree(update, rows=32)
        exact = true_gradient(loop)
        if name == "ema":
            loop.planned.update.component.load_state_dict(
                {"seen": float(probability(loop, table(loop).detach()) @ EARNED)}
            )
        found = []
        for _ in range(30):
            rollout = loop.hooks.rollout(loop.ctx)
            earned = EARNED[[ANSWERS.index(tuple(rollout.response_ids(i))) for i in range(len(rollout))]]
            found.append(gradient_of(loop, loop.hooks.advantage(loop.ctx, rollout.scored(earned.float()))))
            loop.phase.scope.step += 1
        drawn[name] = torch.stack(found)
        along = drawn[name].flatten(1) @ exact.flatten() / exact.norm()
        error = float(along.std()) / len(along) ** 0.5
        assert abs(float(along.mean() - exact.norm())) < 3 * error, name
        assert float(along.mean()) > 3 * error, "there is a signal"
    variance = {name: float(values.var(0).sum()) for name, values in drawn.items()}
    assert variance["ema"] < 0.2 * variance["none"]
    assert variance["rloo"] < 0.3 * variance["none"]


@pytest.mark.parametrize("use", ["grpo", "rloo", "dr-grpo", "gspo", "sapo", "cispo", "dapo", "reinforce-plus-plus"])
@pytest.mark.parametrize("reward", [0.0, 0.1, -1e6, 1e-30])
def test_equal_rewards_teach_nothing_and_are_no_nan(tree: Tree, use: str, reward: float) -> None:
    loop = tree(use)
    scored = batch_of(loop, list(range(12)), 3)
    batch = loop.hooks.advantage(loop.ctx, flat(scored, reward))
    assert float(batch.advantage_BT.abs().max()) == 0.0
    if use == "dapo":
        before = table(loop).detach().clone()
        loop.hooks.update(loop.ctx, batch)
        assert torch.equal(table(loop), before), "no row is left, so no step is taken"
        assert loop.phase.metrics.collect()[0]["kept"] == 0.0
    else:
        assert float(gradient_of(loop, batch).abs().max()) == 0.0


def flat(scored: Scored, reward: float) -> Scored:
    paid = torch.zeros_like(scored.reward_BT)
    paid[torch.arange(len(scored)), scored.length_B - 1] = reward
    return scored.with_reward(paid)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_kl_loss_pulls_with_the_gradient_it_says(tree: Tree, estimator: str) -> None:
    """Without advantage, and weighed by how likely each answer is: ∇KL(π‖ref) for k2, ∇KL(ref‖π) for k3, state by state."""
    loop = tree({"use": "rloo", "kl_loss": 1.0, "kl_estimator": estimator})
    fill(loop, "reference", 9)
    p = probability(loop, table(loop).detach())
    copies = torch.round(p * 8_000).long().tolist()  # rows in proportion, for a loss cannot be weighed by row
    rows = [i for i, n in enumerate(copies) for _ in range(n)]
    batch = batch_of(loop, rows, 1).advantaged(torch.zeros(len(rows)))
    share = torch.tensor([n / len(rows) for n in copies], dtype=torch.float64)
    weight = table(loop).detach().double().requires_grad_()
    visits: dict[int, float] = {}
    for answer, often in zip(ANSWERS, share.tolist()):
        for t in range(len(answer)):
            at = situation(loop, answer, t)
            visits[at] = visits.get(at, 0.0) + often
    total = torch.zeros((), dtype=torch.float64)
    for at, often in visits.items():
        new = torch.log_softmax(weight[[END, A, B], at], 0)
        ref = torch.log_softmax(table(loop, "reference")[[END, A, B], at].detach().double(), 0)
        total = total + often * (
            (new.exp() * (new - ref)).sum() if estimator == "k2" else (ref.exp() * (ref - new)).sum()
        )
    total.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert_close(gradient_of(loop, batch), -weight.grad, tolerance=3e-3)


MACROS = [{"kind": "ngram", "n": 1}, {"kind": "random", "n": 1}, {"kind": "perplexity", "n": 1}]


@pytest.mark.parametrize("macro", MACROS, ids=lambda m: m["kind"])
@pytest.mark.parametrize("use", ["ppo", "grpo", "reinforce", "dapo"])
def test_macros_of_one_token_are_the_tokens_bit_for_bit(tree: Tree, use: str, macro: dict[str, Any]) -> None:
    loops = [tree({"use": use, "epochs": 2, **extra}, rows=8) for extra in ({}, {"macro": macro})]
    for _ in range(3):
        rows = []
        for loop in loops:
            loop.step()
            loop.phase.scope.step += 1
            figures, _ = loop.phase.metrics.collect()
            rows.append(figures)
        assert rows[0] == rows[1]
    assert torch.equal(table(loops[0]), table(loops[1]))


def test_a_macro_has_one_ratio_and_one_advantage(tree: Tree) -> None:
    """Two tokens as one action: the summed log-ratio, the first token's advantage, averaged over actions."""
    loop = tree(
        {"use": "ppo", "macro": {"kind": "ngram", "n": 2}, "lam": 1.0, "clip_range": 0.9, "clip_high": 9.0, "epochs": 2}
    )
    scored = batch_of(loop, list(range(15)), 1)
    batch = loop.hooks.advantage(loop.ctx, scored)
    fill(loop, "policy", 0)
    before = table(loop).detach().clone()
    component = loop.planned.update.component
    old = component.prepared(loop.ctx, batch)
    with torch.no_grad():
        table(loop)[[END, A, B]] += 0.3 * torch.randn(3, before.shape[1], generator=torch.Generator().manual_seed(4))
    weight = table(loop).detach().double().requires_grad_()
    gained, actions = torch.zeros((), dtype=torch.float64), 0
    for answer, earned in zip(ANSWERS, EARNED):
        new, was = logprob(loop, weight, answer), logprob(loop, before, answer)
        for t in range(0, len(answer), 2):
            gained = gained + torch.stack([n - w for n, w in zip(new[t : t + 2], was[t : t + 2])]).sum().exp() * earned
            actions += 1
    (gained / actions).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    trainer = loop.phase.trainer
    caught: list[Tensor] = []
    trainer.optimiser.step = lambda share: caught.append(table(loop).grad.double().clone()) or 0.0  # type: ignore
    loop.ctx.train(old, component.loss)
    assert_close(-caught[0], weight.grad)


def test_ptx_adds_its_weight_times_the_gradient_of_its_likelihood(tree: Tree, tmp_path: Path) -> None:
    found = {}
    for weight in (0.0, 1.0, 3.0):
        loop = tree({"use": "ppo", "ptx": {"path": str(tmp_path / "words.jsonl"), "weight": weight, "rows": 2}})
        found[weight] = gradient_of(loop, loop.hooks.advantage(loop.ctx, batch_of(loop, list(range(15)), 1)))
    table_of = table(loop).detach().double().requires_grad_()
    text = [lp for answer in ((A, B, END), (B, A, END)) for lp in logprob(loop, table_of, answer)]
    torch.stack(text).mean().backward()  # type: ignore[no-untyped-call]
    assert table_of.grad is not None
    assert_close(found[1.0] - found[0.0], table_of.grad)
    assert_close(found[3.0] - found[0.0], 3 * table_of.grad)
