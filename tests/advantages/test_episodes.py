"""An episode of several rows counts once in every statistic over groups, and its credit goes to all of its rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from made_rows import Ctx, advantage, around, made, rows

from hookline import PluginError, Scored, concat, pairs
from hookline.contract.metrics import CORE_METRICS
from hookline.loop.checks import check_batch
from hookline.loop.guards import learning_signal
from hookline.loop.phase import Counters
from hookline.runs.figures import Dictionary, MetricLog
from hookline_plugins.advantages.group_relative import GroupRelative
from hookline_plugins.advantages.leave_one_out import LeaveOneOut
from hookline_plugins.wrappers.normalise import Normalise

WHOLE = [[0.0, 3.0], [0.0, 1.0], [0.0, 5.0]]
"""Three answers to one prompt."""
SPLIT = [[0.0, 1.0], [0.0, 2.0], [0.0, 1.0], [0.0, 5.0]]
"""The same with the first as two rows of one episode."""
OF = [0, 0, 1, 2]
"""Which of the three each row belongs to."""


def whole() -> Scored:
    return rows(WHOLE, [0, 0, 0])


def split() -> Scored:
    return replace(rows(SPLIT, [0, 0, 0, 0]), episode_B=torch.tensor([7, 7, 8, 9]))


@pytest.mark.parametrize("cls", [GroupRelative, LeaveOneOut])
@pytest.mark.parametrize("options", [{}, {"scale": "none"}])
def test_rows_of_one_episode_get_what_the_episode_would_get_as_one_row(cls: type[Any], options: dict[str, str]) -> None:
    if options and cls is LeaveOneOut:
        options = {}
    one = advantage(made(cls, **options), whole())
    torch.testing.assert_close(advantage(made(cls, **options), split()), one[OF], rtol=0, atol=0)


def test_an_episode_s_reward_is_the_sum_over_its_rows() -> None:
    assert split().episode_reward_B.tolist() == [3, 3, 1, 5]
    assert whole().episode_reward_B.tolist() == whole().reward_B.tolist() == [3, 1, 5]


@pytest.mark.parametrize("over", ["first", "batch", "group"])
def test_normalised_episodes_sum_to_what_whole_answers_are_normalised_to(over: str) -> None:
    one = around(made(Normalise, over=over), "hookline_score", whole())
    several = around(made(Normalise, over=over), "hookline_score", split())
    torch.testing.assert_close(several.episode_reward_B, one.reward_B[OF], rtol=0, atol=1e-6)
    assert not torch.equal(several.reward_BT[0], several.reward_BT[1])  # the mean was taken away once, not twice


def test_rows_of_one_episode_are_no_comparison() -> None:
    better, worse = pairs(split())
    found = set(zip(better.tolist(), worse.tolist()))
    assert found == {(0, 2), (1, 2), (3, 0), (3, 1), (3, 2)}


def test_one_episode_alone_is_no_group_of_equal_rewards() -> None:
    log = MetricLog(Dictionary(CORE_METRICS))
    scored = replace(rows([[1.0], [2.0], [3.0]], [0, 0, 1]), episode_B=torch.tensor([0, 0, 1]))
    learning_signal(_phase(), scored, Counters(), log, print)
    assert "equal_groups" not in log.collect()[0]


def test_episodes_that_earn_the_same_carry_no_signal_though_their_rows_differ() -> None:
    log, counters = MetricLog(Dictionary(CORE_METRICS)), Counters()
    scored = replace(rows([[1.0], [2.0], [3.0]], [0, 0, 0]), episode_B=torch.tensor([0, 0, 1]))
    learning_signal(_phase(), scored, counters, log, print)
    assert counters.quiet_steps == 1
    assert log.collect()[0]["equal_groups"] == 1.0


def _phase() -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(
        update=None, advantage_by=SimpleNamespace(), rewards=(), spec=SimpleNamespace(patience=99, name="p")
    )


def test_episodes_are_sliced_and_joined_like_every_column() -> None:
    scored = split()
    assert scored.rows([3, 1]).episode_B.tolist() == [9, 7]
    assert concat([scored.rows([0]), scored.rows([1, 2])]).episode_B.tolist() == [7, 7, 8]
    assert "episode_B" in scored.tensors()
    assert torch.equal(whole().episode_B, whole().sample_B)


def test_an_episode_in_two_groups_is_refused() -> None:
    check_batch(split(), "rollout 'mine'")
    with pytest.raises(PluginError, match="an episode has rows in two groups"):
        check_batch(replace(split(), group_B=torch.tensor([0, 1, 1, 1])), "rollout 'mine'")
    with pytest.raises(PluginError, match="episode_B"):
        check_batch(replace(split(), episode_B=torch.tensor([7, 7])), "rollout 'mine'")


def test_the_order_of_rows_does_not_matter_to_episodes() -> None:
    order = torch.tensor([2, 1, 3, 0])
    for cls in (GroupRelative, LeaveOneOut):
        torch.testing.assert_close(advantage(made(cls), split().rows(order)), advantage(made(cls), split())[order])
    plain = around(made(Normalise), "hookline_score", split(), Ctx())
    shuffled = around(made(Normalise), "hookline_score", split().rows(order), Ctx())
    torch.testing.assert_close(shuffled.reward_BT, plain.reward_BT[order])
