"""Laws for rewards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hookline.batch.stages import Batch, Term
from hookline.testing.harness import Harness
from hookline.testing.lawbook.batches import apart, groups_of, order_of, widened
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law

LIMIT = 5e-6
Answers = tuple[Tensor, Tensor]
"""The reward of each row [B], and whether the row was judged [B]."""


def said(harness: Harness, rollout: Batch) -> Any:
    """The reward's own answer, before the core turns it into a Term."""
    answer = harness.ask("hookline_reward", rollout=rollout)
    return answer.value if isinstance(answer, Term) else answer


def worth(harness: Harness, rollout: Any, fresh: bool = True) -> Answers:
    """The reward of each row, and whether the row was judged. fresh: as in `Harness.term`."""
    term = harness.term(rollout, fresh)
    value = term.value if term.value.dim() == 1 else term.value.sum(1)
    assert term.ok_B is not None
    return value, term.ok_B


def steady(harness: Harness, rollout: Any) -> Answers:
    """`worth`, of a reward that gives equal rows equal answers; raises NotApplicable for other rewards."""
    one, two = worth(harness, rollout), worth(harness, rollout)
    if not alike(one, two, 0.0):
        raise NotApplicable(
            "two equal questions get different answers, so two answers cannot be compared; see `deterministic`"
        )
    return one


def alike(one: Answers, other: Answers, limit: float = LIMIT) -> bool:
    return torch.equal(one[1], other[1]) and apart(one[0], other[0]) <= limit


def same(one: Answers, other: Answers, what: str) -> None:
    if not torch.equal(one[1], other[1]):
        raise Broken(f"{what}, {int(other[1].sum())} rows are judged instead of {int(one[1].sum())}, or different rows")
    distance = apart(one[0], other[0])
    if distance > LIMIT:
        row = int((one[0] - other[0]).abs().argmax()) if one[0].shape == other[0].shape else 0
        raise Broken(
            f"{what}, rewards differ by {distance:.2g} of the largest: {float(one[0][row]):.4g} became {float(other[0][row]):.4g}"
        )


def relative(harness: Harness) -> bool:
    """Whether the reward may look at the other answers to a prompt."""
    return bool({"groups", "pairs"} & set(harness.component.needs))


@law("reward")
def paid_where_chosen(subject: Subject) -> str | None:
    """Only tokens that the policy chose get a reward: a reward on padding or tool output is lost without an error."""
    harness = subject.harness()
    rollout = harness.batch("rollout")
    value = said(harness, rollout)
    if isinstance(value, Tensor) and value.dim() == 2:
        outside_BT = (value != 0) & ~rollout.mask_BT
        if bool(outside_BT.any()):
            row, at = outside_BT.nonzero()[0].tolist()
            where = "a PAD token" if at >= int(rollout.length_B[row]) else "a token the policy did not choose"
            raise Broken(
                f"{int(outside_BT.any(1).sum())} of {len(rollout)} rows are paid outside the mask: row {row} has "
                f"{float(value[row, at]):.4g} on {where} (column {at}, its answer has {int(rollout.length_B[row])} tokens)"
            )
        return None
    return "one number per row, which the core puts on the last chosen token"


def by_padding(harness: Harness, rollout: Batch) -> Answers:
    """The rewards with more padding, full of junk."""
    return worth(harness, widened(rollout, harness.tokenizer.vocabulary))


def by_order(harness: Harness, rollout: Batch, plain: Answers) -> tuple[Answers, Answers]:
    """The rewards of shuffled rows: those expected, and those given."""
    order = order_of(rollout, within_groups=not relative(harness))
    return (plain[0][order], plain[1][order]), worth(harness, rollout.rows(order))


@law("reward")
def padding(subject: Subject) -> str | None:
    """Nothing depends on padding: more padding, or junk in it, changes no reward."""
    harness = subject.harness()
    rollout = harness.batch("rollout")
    plain = steady(harness, rollout)
    same(plain, by_padding(harness, rollout), "with three more columns of padding, full of junk")
    return None


@law("reward")
def permutation(subject: Subject) -> str | None:
    """The order of rows does not matter: each row keeps its own reward."""
    harness = subject.harness()
    rollout = harness.batch("rollout")
    same(*by_order(harness, rollout, steady(harness, rollout)), "with the rows in another order")
    return None


@law("reward")
def other_rows(subject: Subject) -> str | None:
    """A row's reward does not depend on other prompts: without their rows it is the same."""
    harness = subject.harness()
    rollout = harness.batch("rollout")
    value, ok = steady(harness, rollout)
    if not alike((value, ok), by_padding(harness, rollout)):
        raise NotApplicable("fewer rows have less padding, which changes rewards here; see `padding`")
    if not alike(*by_order(harness, rollout, (value, ok))):
        raise NotApplicable("fewer rows are in other places, which changes rewards here; see `permutation`")
    rows = [[row] for row in range(len(rollout))]
    if relative(harness):
        rows = [(rollout.group_B == group).nonzero()[:, 0].tolist() for group in groups_of(rollout)]
    for some in rows:
        same((value[some], ok[some]), worth(harness, rollout.rows(some)), f"with {len(some)} of {len(rollout)} rows")
    return None


@law("reward")
def deterministic(subject: Subject) -> str | None:
    """Two calls with the same rows give the same rewards."""
    harness = subject.harness()
    rollout = harness.batch("rollout")
    one, two = worth(harness, rollout), worth(harness, rollout)
    if not alike(one, two, 0.0):
        raise Broken(
            f"the second answer differs by {apart(one[0], two[0]):.2g} of the largest; draw from ctx.rng(purpose, sample id), or give "
            "`exempt` the reason why a service answers differently each time"
        )
    return None
