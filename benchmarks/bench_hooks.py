"""What the hooks cost: a step of the main job's PPO, and the same step with every answer already known.

What is left when nobody computes anything is the core's own work: adapters, watching for in-place changes, checks of
shapes and finiteness, counting. Promise: under 1 % of a real step.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hookline.loop.loop import PhaseLoop
from hookline.testing import open_phase

PHASE = {
    "name": "rl",
    "rollout": {"use": "generate", "prompts": "builtin:keywords", "rows": 256, "max_new_tokens": 28},
    "reward": {"use": "keyword-sentence", "name": "gold"},
    "wrap": ["normalise", {"use": "kl-penalty", "target": 3.0}, "whiten"],
    "advantage": "gae",
    "update": {"use": "ppo", "lr": 1e-5, "epochs": 2, "minibatches": 2},
    "steps": 1_000_000,
}


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhaseLoop]:
    experiment = {
        "name": "hooks",
        "tokenizer": {"train": "bpe", "on": "builtin:stdlib-docs", "vocabulary": 2048},
        "model": {"build": "gpt2", "layers": 3, "width": 192, "context": 128, "autocast": "bfloat16"},
        "phases": [PHASE],
        "trackers": [],
    }
    with open_phase(experiment, tmp_path_factory.mktemp("bench") / "run") as opened:
        yield opened


def bench_hooks_share_of_a_step(
    benchmark: Any, loop: PhaseLoop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import time

    def step() -> None:
        loop.step()
        loop.phase.scope.step += 1

    step()
    began = time.perf_counter()
    for _ in range(3):
        step()
    real = (time.perf_counter() - began) / 3

    known: dict[str, Any] = {}
    parts = {
        "rollout/generate": "hookline_rollout",
        "reward/gold": "hookline_reward",
        "advantage/gae": "hookline_advantage",
        "update/ppo": "hookline_update",
    }
    answered = loop.ctx, loop.hooks.rollout(loop.ctx)
    known["hookline_rollout"] = answered[1]
    known["hookline_reward"] = loop.hooks.components["reward/gold"].hookline_reward(answered[1])  # type: ignore[attr-defined]
    scored = loop.hooks.score(*answered)
    known["hookline_advantage"] = loop.hooks.advantage(loop.ctx, scored)
    known["hookline_update"] = None
    for name, hook in parts.items():
        component = loop.hooks.components[name]
        monkeypatch.setattr(type(component), hook, _answering(getattr(type(component), hook), known[hook]))
    benchmark.group = "hooks"
    benchmark.pedantic(loop.step, rounds=20, warmup_rounds=3)
    share = benchmark.stats.stats.median / real
    benchmark.extra_info |= {"real_step_seconds": real, "share_of_a_step": share}
    print(
        f"\na step takes {real * 1e3:.0f} ms, its hooks alone {benchmark.stats.stats.median * 1e3:.2f} ms: {share:.2%}"
    )


def _answering(method: Any, answer: Any) -> Any:
    """The method's own signature, and an answer that is known already."""
    import functools

    @functools.wraps(method)
    def known(*args: Any, **kwargs: Any) -> Any:
        return answer

    return known
