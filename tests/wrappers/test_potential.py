"""Potential-based shaping on the random walks: the optimum stays, Q moves by Φ exactly, and any other bonus is another task."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from made_rows import rows

import hookline
from hookline import Process
from hookline.contract.process import State
from hookline.data.tasks import task
from hookline.loop.api import plan
from hookline_plugins.tasks.exact import ordered
from hookline_plugins.wrappers.potential import Potential, before, reference_values, shaping

Bonus = Callable[[State, State, bool], float]


@cache
def walks() -> Process:
    process = task("builtin:walks").process()
    assert process is not None
    return process


def q_values(
    process: Process, bonus: Bonus, gamma: float
) -> tuple[dict[tuple[State, str], float], dict[State, set[str]]]:
    """(Q of the optimal policy, its actions) when each step also pays a bonus, by backward induction."""
    value: dict[State, float] = {}
    q: dict[tuple[State, str], float] = {}
    best: dict[State, set[str]] = {}
    for state in reversed(ordered(process)):
        actions = process.actions(state)
        for action in actions:
            [(_, after, paid)] = process.step(state, action)
            over = not process.actions(after)
            q[state, action] = paid + bonus(state, after, over) + gamma * (0.0 if over else value[after])
        value[state] = max((q[state, action] for action in actions), default=0.0)
        best[state] = {action for action in actions if q[state, action] > value[state] - 1e-9}
    return q, best


def random_potential(state: State) -> float:
    """Any function will do; this one is wild, and pulls away from the goal."""
    return float(hash(state) % 1009) / 100 - 3  # ints and tuples of them hash alike in every process


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("source", ["reference", "wild"])
def test_the_optimal_policy_stays_and_q_falls_by_the_potential(gamma: float, source: str) -> None:
    process = walks()
    known = reference_values(process)
    phi = known.__getitem__ if source == "reference" else random_potential

    def shaped(state: State, after: State, over: bool) -> float:
        """Through the wrapper's own function: a row of the token taken here and the one behind it."""
        if over:
            both = torch.tensor([[phi(state)]], dtype=torch.float64)
        else:
            both = torch.tensor([[phi(state), phi(after)]], dtype=torch.float64)
        return float(shaping(both, torch.ones_like(both, dtype=torch.bool), gamma)[0, 0])

    q, best = q_values(process, lambda *_: 0.0, gamma)
    q_shaped, best_shaped = q_values(process, shaped, gamma)
    assert best_shaped == best
    worst = max(abs(q_shaped[state, action] - (q[state, action] - phi(state))) for state, action in q)
    assert worst < 1e-9, worst


def test_a_bonus_that_is_no_potential_changes_the_optimum() -> None:
    """The negative control: paying for a place instead of for the way there, or forgetting that Φ ends at 0."""
    process = walks()
    known = reference_values(process)
    _, best = q_values(process, lambda *_: 0.0, 1.0)
    _, paid_to_be_there = q_values(process, lambda state, after, over: known[after], 1.0)
    assert paid_to_be_there != best
    _, open_end = q_values(process, lambda s, after, over: random_potential(after) - random_potential(s), 1.0)
    assert open_end != best


def test_the_reference_s_value_is_the_exact_one() -> None:
    process, value = walks(), reference_values(walks())
    assert sum(p * value[s] for p, s in process.starts()) == pytest.approx(0.3462, abs=5e-5)


MASK = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_discounted_bonuses_telescope_to_minus_the_first_potential(gamma: float) -> None:
    phi = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    phi[~MASK] = torch.nan
    bonus = shaping(phi, MASK, gamma)
    assert bonus[~MASK].eq(0).all()
    for row, first in ((0, 0), (1, 0)):
        own = bonus[row][MASK[row]]
        total = sum(gamma**k * float(b) for k, b in enumerate(own))
        assert total == pytest.approx(-float(phi[row, first]), abs=1e-12)


def test_a_reward_model_s_value_behind_a_token_is_the_potential_before_the_next() -> None:
    value = torch.arange(12.0).view(3, 4) + 1
    assert before(value, MASK).tolist() == [[0, 0, 1, 3], [0, 5, 0, 0], [0, 0, 0, 0]]


@pytest.fixture
def walking(tmp_path: Path) -> Any:
    return lambda wrap: hookline.run(experiment(wrap), out=tmp_path / "run")


def experiment(wrap: Any) -> dict[str, Any]:
    return {
        "name": "walks", "seed": 2, "threads": 1, "trackers": [],
        "tokenizer": {"train": "words", "on": "builtin:walks/walks"},
        "model": {"build": "tabular", "sees": ["position", "last"], "task": "builtin:walks"},
        "phases": [{
            "name": "rl", "steps": 3,
            "rollout": {"use": "generate", "prompts": "builtin:walks", "rows": 20, "max_new_tokens": 11},
            "reward": {"use": "task", "task": "builtin:walks"},
            "wrap": wrap, "advantage": "reward-to-go", "update": {"use": "ppo", "lr": 0.1},
        }],
    }  # fmt: skip


def test_on_sampled_walks_each_answer_s_bonus_is_what_its_start_was_worth(walking: Any) -> None:
    """Through a whole run: γ = 1, so an answer's sum of bonuses is −Φ(start), whatever it did."""
    run = walking([{"use": "potential", "task": "builtin:walks"}])
    process, value = walks(), reference_values(walks())
    expected = -sum(value[state] for _, state in process.starts()) / 20
    for row in run.rows():
        assert row["metrics"]["shaping"] == pytest.approx(expected, abs=1e-6)


def test_prompts_of_another_task_and_processes_of_chance_are_refused(tmp_path: Path) -> None:
    made = experiment([{"use": "potential", "task": "builtin:walks"}])
    (tmp_path / "odd.jsonl").write_text('{"prompt": "n1 n2"}\n')
    made["phases"][0]["rollout"]["prompts"] = str(tmp_path / "odd.jsonl")
    made["phases"][0]["reward"] = "length"
    with pytest.raises(hookline.DataError, match="the prompt 'n1 n2' is not a start of builtin:walks"):
        hookline.run(made, out=tmp_path / "run")

    class Chance(Process):
        def starts(self) -> Any:
            return [(1.0, 0)]

        def actions(self, state: State) -> Any:
            return {} if state else {"go": 1.0}

        def step(self, state: State, action: str) -> Any:
            return [(0.5, 1, 0.0), (0.5, 2, 1.0)]

    with pytest.raises(hookline.ExperimentError, match="'go' in 0 may lead to 2 states"):
        reference_values(Chance())


@pytest.mark.parametrize("wrong", [{"use": "potential"}, {"use": "potential", "task": "builtin:walks", "from": "rl"}])
def test_exactly_one_source(wrong: Any) -> None:
    with pytest.raises(hookline.ExperimentError, match="needs a source of the potential"):
        plan(experiment([wrong]))


def test_a_class_of_one_s_own_brings_another_potential() -> None:
    from made_rows import Ctx, around

    class Steps(Potential):
        """Φ counts down the tokens so far."""

        def potential(self, ctx: Any, scored: Any) -> torch.Tensor:
            return -scored.mask_BT.cumsum(1).float()

    component = Steps(Steps.Config.model_construct(gamma=1.0))
    said = around(component, "hookline_score", rows(torch.zeros(1, 3)), Ctx())
    assert said.reward_BT.tolist() == [[-1, -1, 3]]
    assert said.terms["shaping"].tolist() == [1.0]
