"""An answer that a template deals into two rows is one episode: every algorithm says of it what it says of the whole."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from made_rows import Ctx, around, made, rows
from torch import Tensor

from hookline import Component, Scored
from hookline_plugins import maths
from hookline_plugins.advantages.gae import GAE
from hookline_plugins.advantages.group_relative import GroupRelative
from hookline_plugins.advantages.leave_one_out import LeaveOneOut
from hookline_plugins.advantages.reward_to_go import RewardToGo
from hookline_plugins.algorithms.a2c import A2C
from hookline_plugins.algorithms.best_of_n import BestOfN
from hookline_plugins.algorithms.comparisons import comparisons
from hookline_plugins.algorithms.dpo import DPO
from hookline_plugins.algorithms.dr_grpo import DrGRPO
from hookline_plugins.algorithms.grpo import GRPO
from hookline_plugins.algorithms.kto import KTO
from hookline_plugins.algorithms.reinforce import Reinforce
from hookline_plugins.algorithms.reinforce_plus_plus import ReinforcePlusPlus, ReinforcePlusPlusBaseline
from hookline_plugins.algorithms.remax import ReMax
from hookline_plugins.algorithms.rloo import RLOO
from hookline_plugins.wrappers.preference import Preference

REWARD = [[0.0, 1, 0, 2], [0.5, 0, 0, -1], [0, 0, 4, 0], [1, 1, 1, 1], [0, -2, 0, 0.25]]
MASK = [[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1], [1, 1, 0, 0]]
GROUP = [0, 0, 0, 1, 1]
SOURCE = ("policy", "policy", "greedy", "greedy", "policy")
ORDER = [3, 8, 0, 5, 9, 1, 6, 2, 7, 4]
"""The rows as the batch has them: half `i % 2` of answer `i // 2`. Samples are numbered in that order within an answer."""


def whole() -> Scored:
    """Five answers to two prompts."""
    tokens = torch.arange(20).view(5, 4) + 3
    return replace(rows(REWARD, GROUP, MASK, tokens=tokens), source=SOURCE)


def halves() -> Scored:
    """The same answers, each as two rows, in no order."""
    one, index = whole(), torch.tensor(ORDER)
    reward, mask = one.reward_BT.view(10, 2)[index], one.mask_BT.view(10, 2)[index]
    made_of = rows(reward, tokens=one.token_ids_BT.view(10, 2)[index], mask=mask.int().tolist())
    source = tuple(SOURCE[i // 2] for i in ORDER)
    group_B = one.group_B[index // 2]
    return replace(made_of, group_B=group_B, episode_B=70 + index // 2, sample_B=200 + index, source=source)


def dealt(x_BT: Tensor) -> Tensor:
    """What is said of the whole answers, as the halves would have it."""
    return x_BT.reshape(10, 2)[torch.tensor(ORDER)]


class Seen(Ctx):
    """A context whose models say the same of a token wherever it stands, and which keeps what is trained on."""

    batch: Any = None

    def stats(self, batch: Any, model: str = "policy", want: Any = ("logprobs",), support: Any = None) -> Any:
        value_BT = torch.where(batch.mask_BT, batch.token_ids_BT.float().sin(), 0.0)
        return dict.fromkeys(want, value_BT) if want != ("logprobs",) else SimpleNamespace(logprobs_BT=-value_BT.abs())

    def role_with(self, head: str) -> str:
        return "critic"

    def role_named(self, name: str) -> Any:
        return SimpleNamespace(context=99)

    def train(self, batch: Any, loss: Any, **options: Any) -> None:
        self.batch = batch


def advantage(component: Any, scored: Scored, ctx: Ctx) -> Tensor:
    component.shared = False
    given = {"ctx": ctx, "scored": scored}
    method = component.hookline_advantage
    said: Tensor = method(**{name: given[name] for name in inspect.signature(method).parameters}).advantage_BT
    return said


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        *((RewardToGo, {"baseline": b, "gamma": g}) for b in ("none", "mean", "group") for g in (1.0, 0.9)),
        *((Reinforce, {"baseline": b, "gamma": g}) for b in ("none", "mean", "group", "ema") for g in (1.0, 0.9)),
        (ReinforcePlusPlus, {}),
        (ReinforcePlusPlusBaseline, {}),
        (ReMax, {}),
        (GroupRelative, {}),
        (LeaveOneOut, {}),
        (GRPO, {}),
        (DrGRPO, {}),
        (RLOO, {}),
        (GAE, {"gamma": 0.9, "lam": 0.8}),
        (A2C, {"gamma": 0.9, "lam": 0.8}),
    ],
    ids=lambda part: part.__name__ if isinstance(part, type) else " ".join(map(str, part.values())),
)
def test_each_token_has_the_advantage_that_it_has_in_the_whole_answer(
    cls: type[Component], options: dict[str, Any]
) -> None:
    one_ctx, two_ctx = Seen(), Seen()
    one = advantage(made(cls, **options), whole(), one_ctx)
    two = advantage(made(cls, **options), halves(), two_ctx)
    torch.testing.assert_close(two, dealt(one), rtol=0, atol=1e-6)
    assert bool((two[halves().mask_BT] != 0).any())


@pytest.mark.parametrize(
    "options", [{"keep": "best"}, {"keep": "share", "share": 0.4}, {"keep": "threshold", "threshold": 2.5}], ids=str
)
def test_best_of_n_keeps_whole_answers(options: dict[str, Any]) -> None:
    one_ctx, two_ctx = Seen(), Seen()
    component = made(BestOfN, **options)
    component.hookline_update(one_ctx, whole())
    component.hookline_update(two_ctx, halves())
    kept = set(one_ctx.batch.sample_B.tolist())
    assert 0 < len(kept) < 5
    assert two_ctx.batch.sample_B.tolist() == [200 + i for i in ORDER if i // 2 in kept], (
        "both rows, in the batch's order"
    )
    assert two_ctx.figures == one_ctx.figures


def test_kto_calls_a_row_good_that_is_of_a_good_answer() -> None:
    one_ctx, two_ctx = Seen(), Seen()
    component = made(KTO, threshold=1.0)
    component.hookline_update(one_ctx, whole())
    component.hookline_update(two_ctx, halves())
    good_B = one_ctx.batch.extra["good_B"]
    assert good_B.tolist() == [1, 0, 1, 1, 0]
    for column in ("good_B", "bad_B"):
        expected = one_ctx.batch.extra[column][torch.tensor(ORDER) // 2]
        assert torch.equal(two_ctx.batch.extra[column], expected)


def test_dpo_ranks_answers_and_compares_no_row_with_its_own_other_half() -> None:
    one_ctx, two_ctx = Seen(), Seen()
    component = made(DPO, loss="plackett-luce")
    component.hookline_update(one_ctx, whole())
    component.hookline_update(two_ctx, halves())
    assert one_ctx.batch.extra["stages_B"].tolist() == [1, 0, 1, 1, 0], "the last of each prompt beats none"
    stages = dict(zip(two_ctx.batch.sample_B.tolist(), two_ctx.batch.extra["stages_B"].tolist()))
    assert stages == {200 + i: one_ctx.batch.extra["stages_B"][i // 2] for i in range(10)}


@pytest.mark.parametrize("soft", [False, True], ids=["by reward", "by preference"])
def test_comparisons_are_between_answers(soft: bool) -> None:
    one, two = whole(), halves()
    if soft:
        judge = made(Preference)
        judge.task = None
        one, two = (around(judge, "hookline_score", scored, Ctx()) for scored in (one, two))
    first, second = comparisons(one), comparisons(two)
    expected = {
        (a, b, round(p, 6)) for a, b, p in zip(first.chosen.tolist(), first.rejected.tolist(), first.preferred.tolist())
    }
    of = [i // 2 for i in ORDER]
    found = [
        (of[a], of[b], round(p, 6))
        for a, b, p in zip(second.chosen.tolist(), second.rejected.tolist(), second.preferred.tolist())
    ]
    assert set(found) == expected
    assert len(found) == 4 * len(expected), "each row with each row of the other answer"


def test_rows_that_are_episodes_of_their_own_are_handed_through_untouched() -> None:
    """Nothing is added, sorted or copied: figures of experiments without episodes keep every bit."""
    one = whole()
    handed: list[Tensor] = []

    def of_rows(*columns_BT: Tensor) -> Tensor:
        handed.extend(columns_BT)
        return columns_BT[0]

    found = maths.end_to_end(of_rows, one.episode_B, one.sample_B, one.reward_BT, one.mask_BT)
    assert found is one.reward_BT
    assert handed[0] is one.reward_BT
    assert handed[1] is one.mask_BT
    assert maths.per_episode(one.reward_B, one.episode_B).tolist() == one.reward_B.tolist()
    x_B = torch.rand(5)
    assert maths.per_episode(x_B, one.episode_B) is x_B


@pytest.mark.parametrize("of_rows", [maths.reward_to_go, lambda reward_BT, mask_BT: maths.first_true(mask_BT)])
def test_no_rows_and_no_tokens_pass(of_rows: Callable[..., Tensor]) -> None:
    none = halves().rows([])
    assert maths.end_to_end(of_rows, none.episode_B, none.sample_B, none.reward_BT, none.mask_BT).shape == (0, 0)
    empty = torch.zeros(2, 0)
    numbers = torch.tensor([1, 1])
    assert maths.end_to_end(of_rows, numbers, numbers, empty, empty.bool()).shape == (2, 0)
