"""Each policy gradient's update beside the same objective written by hand in plain PyTorch, on the same batch.

    make bench ARGS="benchmarks/bench_algorithms.py"

By hand means what one would write: the model's own logits, `log_softmax`, `gather`, the objective, `clip_grad_norm_`, AdamW;
no figures are taken but the loss. Ours is the whole hook: statistics, objective, figures, checks, clipping, AdamW. Both are taken
in turns in one process, so that a busy machine slows both; `ratio` is the median of ours over theirs. Promise: at most 1.05.
Each pair first agrees on the loss.
"""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hookline import Advantaged
from hookline.loop.loop import PhaseLoop
from hookline.testing import open_phase

ROUNDS, LR = 7, 1e-6
Objective = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def clip(ratio: Tensor, a: Tensor, low: float, high: float) -> Tensor:
    return torch.min(ratio * a, ratio.clamp(1 - low, 1 + high) * a)


def per_token(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum() / mask.sum()


def per_row(x: Tensor, mask: Tensor) -> Tensor:
    return ((x * mask).sum(1) / mask.sum(1)).mean()


def summed(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum(1).mean()


def gate(ratio: Tensor, a: Tensor) -> Tensor:
    tau = torch.where(a > 0, 1.0, 1.05)
    return torch.sigmoid(tau * (ratio - 1)) * 4 / tau * a


def gspo(new: Tensor, old: Tensor, a: Tensor, mask: Tensor) -> Tensor:
    ratio = (((new - old) * mask).sum(1) / mask.sum(1)).exp()
    return clip(ratio, a[:, 0], 3e-4, 4e-4).mean()


def rloo(new: Tensor, old: Tensor, a: Tensor, mask: Tensor) -> Tensor:
    return clip(((new - old) * mask).sum(1).exp(), a[:, 0], 0.2, 0.2).mean()


def cispo(new: Tensor, old: Tensor, a: Tensor, mask: Tensor) -> Tensor:
    weight = (new - old).exp().detach().clamp(0.01, 3.0)
    return per_token(weight * a * (new - old), mask)


BY_HAND: dict[str, Objective] = {
    "reinforce": lambda new, old, a, mask: summed((new - old).exp() * a, mask),
    "remax": lambda new, old, a, mask: summed((new - old).exp() * a, mask),
    "reinforce-plus-plus": lambda new, old, a, mask: per_token(clip((new - old).exp(), a, 0.2, 0.2), mask),
    "reinforce-plus-plus-baseline": lambda new, old, a, mask: per_token(clip((new - old).exp(), a, 0.2, 0.2), mask),
    "rloo": rloo,
    "grpo": lambda new, old, a, mask: per_row(clip((new - old).exp(), a, 0.2, 0.2), mask),
    "dr-grpo": lambda new, old, a, mask: summed(clip((new - old).exp(), a, 0.2, 0.2), mask),
    "dapo": lambda new, old, a, mask: per_token(clip((new - old).exp(), a, 0.2, 0.28), mask),
    "gspo": gspo,
    "cispo": cispo,
    "sapo": lambda new, old, a, mask: per_row(gate((new - old).exp(), a), mask),
    "a2c": lambda new, old, a, mask: per_token((new - old).exp() * a, mask),
    "ppo": lambda new, old, a, mask: per_token(clip((new - old).exp(), a, 0.2, 0.2), mask),
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[dict[str, Any]], PhaseLoop]]:
    """`bench(update)`: a phase of 64 answers of 32 tokens, vocabulary 4096, 4 layers of width 256."""
    with contextlib.ExitStack() as stack:

        def make(update: dict[str, Any]) -> PhaseLoop:
            greedy = update["use"] == "remax"
            rollout = {
                "use": "generate", "prompts": "builtin:keywords", "rows": 8, "max_new_tokens": 32,
                "samples_per_prompt": 7 if greedy else 8, "greedy": greedy,
            }  # fmt: skip
            experiment = {
                "name": "algorithms",
                "tokenizer": {"train": "bpe", "on": "builtin:stdlib-docs", "vocabulary": 4096},
                "model": {"build": "gpt2", "layers": 4, "width": 256, "context": 64},
                "phases": [{"name": "rl", "rollout": rollout, "reward": "length", "update": update, "steps": 10**6}],
                "trackers": [],
            }
            return stack.enter_context(open_phase(experiment, tmp_path_factory.mktemp("bench") / "run"))

        yield make


class ByHand:
    """The training step as one writes it without a framework. `critic`: a value head on a copy of the trunk."""

    def __init__(self, loop: PhaseLoop, batch: Advantaged, objective: Objective, config: Any) -> None:
        self.net = copy.deepcopy(loop.phase.roles["policy"].net)
        self.objective, self.config = objective, config
        self.critic = loop.phase.roles.get("critic")
        parameters = list(self.net.parameters())
        if self.critic is not None:
            net = copy.deepcopy(self.critic.net)
            self.trunk = getattr(net, net.base_model_prefix)
            self.head = copy.deepcopy(self.critic.heads["value"])
            parameters += [*self.trunk.parameters(), *self.head.parameters()]
        self.parameters = parameters
        self.optimiser = torch.optim.AdamW(parameters, lr=LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        B, T = batch.token_ids_BT.shape
        P = int(batch.prompt_length_B.max())
        self.ids = torch.zeros(B, P + T, dtype=torch.long)
        self.at = batch.prompt_length_B[:, None] - 1 + torch.arange(T)
        for row in range(B):
            both = batch.prompt_ids(row) + batch.response_ids(row)
            self.ids[row, : len(both)] = torch.tensor(both)
        self.tokens, self.mask = batch.token_ids_BT, batch.mask_BT.float()
        self.advantage = batch.advantage_BT
        self.returns, self.values = batch.extra.get("return_BT"), batch.extra.get("value_BT")

    def logprobs(self) -> tuple[Tensor, Tensor]:
        logits = self.net(self.ids).logits
        logits = logits.gather(1, self.at[:, :, None].expand(-1, -1, logits.shape[-1]))
        logp = F.log_softmax(logits, -1)
        return logp.gather(-1, self.tokens[:, :, None])[:, :, 0], logp

    def loss(self, old: Tensor | None) -> Tensor:
        new, logp = self.logprobs()
        loss = -self.objective(new, new.detach() if old is None else old, self.advantage, self.mask)
        if self.config.entropy_bonus:
            loss = loss + self.config.entropy_bonus * per_token((logp.exp() * logp).sum(-1), self.mask)
        if self.critic is not None:
            assert self.returns is not None
            assert self.values is not None
            hidden = self.trunk(input_ids=self.ids, use_cache=False).last_hidden_state
            value = self.head(hidden).squeeze(-1).gather(1, self.at)
            error = (value - self.returns).square()
            if hasattr(self.config, "value_clip"):
                clipped = self.values + (value - self.values).clamp(-0.2, 0.2)
                error = torch.max(error, (clipped - self.returns).square())
            loss = loss + 0.5 * per_token(0.5 * error, self.mask)
        return loss

    def step(self) -> float:
        steps = self.config.epochs
        old = None
        if steps > 1:
            with torch.no_grad():
                old = self.logprobs()[0]
        total = 0.0
        for _ in range(steps):
            loss = self.loss(old)
            total += float(loss.detach())
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimiser.step()
        return total / steps


@pytest.mark.parametrize("epochs", [1, 2], ids="epochs{}".format)
@pytest.mark.parametrize("use", BY_HAND)
def bench_update(benchmark: Any, bench: Callable[[dict[str, Any]], PhaseLoop], use: str, epochs: int) -> None:
    loop = bench({"use": use, "lr": LR, "epochs": epochs})
    rollout = loop.hooks.rollout(loop.ctx)
    reward_B = torch.randn(len(rollout), generator=torch.Generator().manual_seed(0))  # no two alike: every row teaches
    batch = loop.hooks.advantage(loop.ctx, rollout.scored(reward_B))
    component: Any = loop.hooks.update_component
    selected = component.select(loop.ctx, batch)
    theirs = ByHand(loop, selected, BY_HAND[use], component.config)

    def ours() -> None:
        loop.phase.stats.clear()  # as in a new step
        loop.hooks.update(loop.ctx, batch)
        loop.phase.scope.step += 1

    loop.phase.metrics.collect()
    ours()
    said, expected = loop.phase.metrics.collect()[0]["loss"], theirs.step()
    assert said == pytest.approx(expected, rel=1e-3, abs=2e-5), "the same objective"
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for call, times in zip((ours, theirs.step), taken):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
    ratio = statistics.median(o / t for o, t in zip(*taken))
    best = min(taken[0]) / min(taken[1])
    benchmark.group = f"update epochs={epochs}"
    benchmark.extra_info |= {
        "ratio": round(ratio, 3),
        "ratio_of_best": round(best, 3),
        "by_hand_seconds": min(taken[1]),
    }
    benchmark.pedantic(ours, rounds=1)
    print(f"\n{use} epochs={epochs}: {min(taken[0]) * 1e3:.0f} ms, {ratio:.2f} of by hand (best of each: {best:.2f})")
