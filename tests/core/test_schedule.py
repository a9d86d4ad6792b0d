"""Schedules follow the phase's progress, and steps without rows take no optimiser step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from hookline import UpdateConfig
from hookline.loop.loop import PhaseLoop
from hookline.training.optim import learning_rate

Lab = Callable[..., PhaseLoop]
STEPS = 4


def rates(loop: PhaseLoop, rows: list[int]) -> list[list[float]]:
    """The learning rate of every optimiser step, by step of the phase, where the rollout brings so many rows."""
    bring, found = loop.hooks.rollout, []
    trainer: Any = loop.phase.trainer
    step = trainer.optimiser.step

    def told(share: float) -> float:
        found[-1].append(share)
        rate: float = step(share)
        return rate

    trainer.optimiser.step = told
    for many in rows:
        found.append([])
        some = bring(loop.ctx).rows(range(many))
        loop.hooks.rollout = lambda ctx, some=some: some  # type: ignore[misc]
        loop.step()
        loop.phase.scope.step += 1
        figures, _ = loop.phase.metrics.collect()
        assert all(map(math.isfinite, figures.values())), figures
        assert figures.get("optimiser_steps", 0) == len(found[-1])
    return found


def update(**more: Any) -> dict[str, Any]:
    return {"use": "sft", "lr": 1e-3, "schedule": "linear", "minibatches": 2, "epochs": 1, **more}


def test_where_every_step_takes_the_same_number_a_schedule_counts_optimiser_steps(lab: Lab) -> None:
    found = rates(lab(update=update(warmup=3), steps=STEPS), [8] * STEPS)
    total = STEPS * 2
    expected = [(t + 1) / 3 if t < 3 else 1.0 - (t - 3) / (total - 3) for t in range(total)]
    assert [rate for step in found for rate in step] == expected


def test_a_schedule_is_where_the_phase_is_whatever_steps_left_out(lab: Lab) -> None:
    found = rates(lab(update=update(), steps=STEPS), [8, 0, 1, 8])
    assert [len(step) for step in found] == [2, 0, 1, 2]  # one row makes one part
    assert found[0] == [1.0, 1 - 1 / 8]
    assert found[2] == [1 - 2 / 4]
    assert found[3] == [1 - 6 / 8, 1 - 7 / 8]


def test_warm_up_counts_the_optimiser_steps_that_were_taken(lab: Lab) -> None:
    found = rates(lab(update=update(warmup=4, schedule="constant"), steps=STEPS), [0, 8, 0, 8])
    assert found == [[], [1 / 4, 2 / 4], [], [3 / 4, 4 / 4]]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_rate_stays_between_its_final_share_and_its_peak(schedule: str) -> None:
    config = UpdateConfig.model_validate({"schedule": schedule, "warmup": 10, "final_lr": 0.1})
    for taken, at, total in [(10, 0, 8), (10, 7, 8), (50, 20, 20), (10, 2, 40), (11, 3, 4)]:
        assert 0.1 <= learning_rate(config, taken, at, total) <= 1.0
