"""What TRL's trainers and our phases both get: prompts, the answers that stand in for drawn ones, rewards, and pairs of settings.

It imports nothing of either side. `hundreds`, `units` and `one_group_equal` are reward functions of both.
"""

from __future__ import annotations

import random
from typing import Any

LONGEST, GROUP, PROMPTS, SEED = 7, 4, 4, 4
WORDS = "open close read write file list value name".split()
ASKED = [[{"role": "user", "content": f"{a} the {b}"}] for a, b in zip(WORDS[:PROMPTS], WORDS[3:])]


def answers(end: int, ids: list[int]) -> list[list[list[int]]]:
    """Per prompt, the answers of four rollouts, as token ids: of 1 to LONGEST tokens, and the last of a group never ends."""
    draw = random.Random(SEED)

    def answer(number: int) -> list[int]:
        if number % GROUP == GROUP - 1:
            return draw.choices(ids, k=LONGEST)
        return [*draw.choices(ids, k=draw.randrange(LONGEST)), end]

    return [[answer(number) for number in range(4 * GROUP)] for _ in range(PROMPTS)]


def hundreds(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """Rewards that differ by hundreds, so that what is added to their standard deviation (TRL 1e-4, here 1e-6) does not count."""
    return [float(sum(i * i * token for i, token in enumerate(ids, 7)) % 997) for ids in completion_ids]


def units(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """The same between 0 and 1, where a price of some nats counts."""
    return [reward / 997 for reward in hundreds(completion_ids)]


def one_group_equal(prompts: list[Any], completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """`hundreds`, but all answers to the first prompt earn the same."""
    return [3.0 if asked == ASKED[0] else reward for asked, reward in zip(prompts, hundreds(completion_ids))]


def rated() -> list[dict[str, Any]]:
    """Rows of prompt, completion and label, as text, of which most are bad."""
    return [
        {"prompt": f"{a} the {b}", "completion": f" to {b} a {a}" + "." * i, "label": i % 3 == 0}
        for i, (a, b) in enumerate(zip(WORDS, WORDS[3:] + WORDS[:3]))
    ]


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # name: (the reward function, options of TRL, the phase here)
    "grpo": ("hundreds", {"loss_type": "grpo"}, {"update": {"use": "grpo"}}),
    "grpo, equal group": ("one_group_equal", {"loss_type": "grpo"}, {"update": {"use": "grpo"}}),
    "grpo, KL": (
        "hundreds", {"loss_type": "grpo", "beta": 0.3, "use_bias_correction_kl": False},
        {"update": {"use": "grpo", "kl_loss": 0.3, "kl_estimator": "k3"}},
    ),
    "grpo, KL times ratio": (
        "hundreds", {"loss_type": "grpo", "beta": 0.3, "num_iterations": 1}, {"update": {"use": "grpo", "kl_loss": 0.3}},
    ),
    "grpo, higher": (
        "hundreds", {"loss_type": "grpo", "epsilon": 0.1, "epsilon_high": 0.4},
        {"update": {"use": "grpo", "clip_range": 0.1, "clip_high": 0.4}},
    ),
    "grpo, entropy": (
        "hundreds", {"loss_type": "grpo", "entropy_coef": 0.05}, {"update": {"use": "grpo", "entropy_bonus": 0.05}},
    ),
    "dr_grpo": (
        "units", {"loss_type": "dr_grpo", "scale_rewards": "none", "max_completion_length": LONGEST},
        {"update": {"use": "dr-grpo", "length": LONGEST}},
    ),
    "dapo": ("hundreds", {"loss_type": "dapo", "epsilon_high": 0.28}, {"update": {"use": "dapo"}}),
    "bnpo": ("hundreds", {"loss_type": "bnpo", "epsilon_high": 0.28}, {"update": {"use": "dapo"}}),
    "bnpo, unscaled, KL": (
        "units", {"loss_type": "bnpo", "scale_rewards": "none", "beta": 0.2, "use_bias_correction_kl": False},
        {
            "advantage": {"use": "group-relative", "scale": "none"},
            "update": {"use": "dapo", "clip_high": 0.2, "kl_loss": 0.2, "kl_estimator": "k3"},
        },
    ),
    "gspo": (
        "hundreds", {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.1, "epsilon_high": 0.15},
        {"update": {"use": "gspo", "clip_range": 0.1, "clip_high": 0.15}},
    ),
    "sapo": ("hundreds", {"loss_type": "sapo"}, {"update": {"use": "sapo"}}),
    "cispo": ("hundreds", {"loss_type": "cispo", "epsilon_high": 1.05}, {"update": {"use": "cispo", "clip_high": 0.05}}),
    "rloo": ("units", {"beta": 0.0}, {"update": {"use": "rloo"}}),
    "rloo, KL": ("units", {"beta": 0.2}, {"wrap": [{"use": "kl-penalty", "beta": 0.2}], "update": {"use": "rloo"}}),
    "kto": ("", {"beta": 0.1}, {"update": {"use": "kto", "beta": 0.1}}),
    "kto, weights": (
        "", {"beta": 0.3, "desirable_weight": 2.5, "undesirable_weight": 0.75},
        {"update": {"use": "kto", "beta": 0.3, "good": 2.5, "bad": 0.75}},
    ),
}  # fmt: skip
"""Pairs of settings: four optimiser steps, of which each rollout has two; with KTO, or `num_iterations: 1`, one."""
NO_LOSS = {
    "cispo": "TRL multiplies with log π, we with log ρ = log π − log π_old, a constant less",
    "grpo, KL times ratio": "TRL's term is ρ k3; at ρ = 1 its gradient is that of k2, its value is that of k3",
}
"""Cases of which only the gradients are the same."""
