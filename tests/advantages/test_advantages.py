"""Advantages against their definitions: laws, brute force, and the exact gradient of a bandit summed over everything that can be drawn."""

from __future__ import annotations

import itertools
from dataclasses import fields
from typing import Any

import pytest
import torch
from made_rows import advantage, made, rows
from torch import Tensor

from hookline import Rollout, kernels
from hookline_plugins.advantages.group_relative import GroupRelative
from hookline_plugins.advantages.leave_one_out import LeaveOneOut
from hookline_plugins.advantages.reward_to_go import RewardToGo

GROUP = [0, 0, 0, 7, 7, 9]
REWARD_B = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 3.0])


def ending(reward_B: Tensor, T: int = 3) -> list[list[float]]:
    return [[0.0] * (T - 1) + [float(r)] for r in reward_B]


def test_group_relative_is_the_paper_s_formula_and_equal_rewards_are_exactly_0() -> None:
    said = advantage(made(GroupRelative), rows(ending(REWARD_B), GROUP))
    three = torch.tensor([1.0, 2.0, 6.0])
    torch.testing.assert_close(said[:3, 0], (three - 3) / (three.std() + 1e-6))
    assert said[3:].eq(0).all(), "equal rewards and rows alone: 0, not 0/0"
    assert said.eq(said[:, :1]).all(), "every token of an answer has the same"


@pytest.mark.parametrize("constant", [0.1, 1e-30, 1e4, 0.1 + 0.2])
def test_groups_that_agree_teach_nothing_whatever_the_rounding(constant: float) -> None:
    for cls in (GroupRelative, LeaveOneOut):
        assert advantage(made(cls), rows(ending(torch.full((7,), constant)), [4] * 7)).eq(0).all()


def test_scale_and_shift_of_the_reward() -> None:
    plain = rows(ending(REWARD_B), GROUP)
    moved = rows(ending(REWARD_B * 50 - 3), GROUP)
    torch.testing.assert_close(advantage(made(GroupRelative), moved), advantage(made(GroupRelative), plain))
    centred = made(GroupRelative, scale="none")
    torch.testing.assert_close(advantage(centred, moved), 50 * advantage(centred, plain))


def test_leave_one_out_is_its_definition_and_k_over_k_minus_1_times_the_centred_one() -> None:
    said = advantage(made(LeaveOneOut), rows(ending(REWARD_B), GROUP))[:, 0]
    siblings = [[j for j in range(6) if GROUP[j] == GROUP[i] and j != i] for i in range(6)]
    by_hand = [float(REWARD_B[i] - REWARD_B[s].mean()) if s else 0.0 for i, s in enumerate(siblings)]
    torch.testing.assert_close(said, torch.tensor(by_hand))
    centred = advantage(made(GroupRelative, scale="none"), rows(ending(REWARD_B), GROUP))[:, 0]
    torch.testing.assert_close(said[:3], centred[:3] * 3 / 2)
    assert float(said[:3].sum()) == pytest.approx(0, abs=1e-6)


MASK = [[1, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1]]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 1.0])
def test_reward_to_go_sums_what_comes_after_over_chosen_tokens(gamma: float) -> None:
    reward = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)) * torch.tensor(MASK)
    said = advantage(made(RewardToGo, gamma=gamma, baseline="none"), rows(reward, mask=MASK))
    for row in range(3):
        chosen = [t for t in range(4) if MASK[row][t]]
        for i, t in enumerate(chosen):
            later = sum(gamma**k * float(reward[row, u]) for k, u in enumerate(chosen[i:]))
            assert float(said[row, t]) == pytest.approx(later, abs=1e-6)
    assert said[~torch.tensor(MASK, dtype=torch.bool)].eq(0).all()
    by_gae, _ = kernels.gae(reward, torch.zeros(3, 4), mask=torch.tensor(MASK, dtype=torch.bool), gamma=gamma, lam=1.0)
    torch.testing.assert_close(said, by_gae)


def test_baselines_of_reward_to_go() -> None:
    batch = rows(ending(REWARD_B), GROUP)
    plain = advantage(made(RewardToGo, baseline="none"), batch)
    torch.testing.assert_close(advantage(made(RewardToGo), batch), plain - REWARD_B.mean())
    group = advantage(made(RewardToGo, baseline="group"), batch)
    torch.testing.assert_close(group, advantage(made(GroupRelative, scale="none"), batch))
    assert made(RewardToGo, baseline="group").needs == {"groups"}
    assert not made(RewardToGo).needs


@pytest.mark.parametrize(
    ("component", "share"),
    [
        (made(LeaveOneOut), 1.0),
        (made(GroupRelative, scale="none"), 2 / 3),
        (made(RewardToGo, baseline="none"), 1.0),
        (made(RewardToGo, baseline="mean"), 2 / 3),
        (made(RewardToGo, baseline="group"), 2 / 3),
    ],
    ids=["leave-one-out", "group-relative", "to-go", "to-go-mean", "to-go-group"],
)
def test_baselines_leave_the_gradient_s_direction_and_take_variance_away(component: Any, share: float) -> None:
    """Four arms, three draws a step: the mean over all 64 steps that can happen is the exact gradient times `share`."""
    theta = torch.tensor([0.3, -0.2, 0.1, 0.0], dtype=torch.float64)
    worth = torch.tensor([1.0, 0.0, -1.0, 3.0], dtype=torch.float64) + 2  # all above 0: no baseline is noisy here
    p = theta.softmax(0)
    exact = p * (worth - p @ worth)
    score = torch.eye(4, dtype=torch.float64) - p  # row a: ∇ log p(a)
    mean, square = torch.zeros(4, dtype=torch.float64), 0.0
    plain = 0.0
    for drawn in itertools.product(range(4), repeat=3):
        arms = torch.tensor(drawn)
        said = advantage(component, rows(worth[arms, None], [0, 0, 0]))[:, 0].double()
        step, raw = (said[:, None] * score[arms]).mean(0), (worth[arms, None] * score[arms]).mean(0)
        chance = float(p[arms].prod())
        mean += chance * step
        square += chance * float(step.square().sum())
        plain += chance * float(raw.square().sum())
    torch.testing.assert_close(mean, exact * share, atol=1e-7, rtol=1e-6)
    variance, without = square - float(mean.square().sum()), plain - float(exact.square().sum())
    assert (
        variance == pytest.approx(without) if "none" in str(component.config) and share == 1 else variance < without / 2
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_a_reward_on_a_skipped_token_counts_nowhere(gamma: float) -> None:
    """One rule for all advantages, and for a row's reward."""
    mask = torch.tensor(MASK, dtype=torch.bool)
    reward = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    plain = advantage(made(RewardToGo, gamma=gamma, baseline="none"), rows(reward * mask, mask=MASK))
    assert torch.equal(advantage(made(RewardToGo, gamma=gamma, baseline="none"), rows(reward, mask=MASK)), plain)
    by_gae, _ = kernels.gae(reward, torch.zeros(3, 4), mask=mask, gamma=gamma, lam=1.0)
    torch.testing.assert_close(plain, by_gae)
    batch = rows(reward * mask, mask=MASK)
    drawn = Rollout(**{f.name: getattr(batch, f.name) for f in fields(Rollout)})
    for scored in (drawn.scored(reward), batch.with_reward(reward)):
        assert torch.equal(scored.reward_BT, reward * mask)
