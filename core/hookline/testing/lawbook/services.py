"""Laws for rewards about what they ask, remember and are told late: services answer in any order, or not at all."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from hookline.batch.stages import Batch
from hookline.testing.harness import Harness
from hookline.testing.lawbook.batches import groups_of
from hookline.testing.lawbook.rewards import Answers, alike, relative, same, steady, worth
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law


def asking(subject: Subject) -> tuple[Harness, Batch]:
    """The harness of a reward that asks through ctx.each, and a rollout. Raises NotApplicable for other rewards."""
    harness = subject.harness()
    rollout = harness.batch("rollout")
    before = harness.service.asked
    worth(harness, rollout)
    if harness.service.asked == before:
        raise NotApplicable("the reward asks nothing through ctx.each")
    return harness, rollout


def halves(harness: Harness, rollout: Batch) -> list[list[int]]:
    """Two parts of the rows that answer the same prompts; for a reward that compares answers, of whole groups."""
    place = {group: i for i, group in enumerate(groups_of(rollout))}
    part_B = [place[group] if relative(harness) else row for row, group in enumerate(rollout.group_B.tolist())]
    return [[row for row, part in enumerate(part_B) if part % 2 == which] for which in (0, 1)]


def before_and_after(harness: Harness, rollout: Batch) -> Iterator[tuple[Answers, Answers]]:
    """For each half of the rows: the rewards if only these are judged, and if the other half was judged before."""
    first, second = halves(harness, rollout)
    for some, others in ((first, second), (second, first)):
        alone = worth(harness, rollout.rows(some))
        worth(harness, rollout.rows(others))
        yield alone, worth(harness, rollout.rows(some), fresh=False)


@law("reward")
def earlier_rows(subject: Subject) -> str | None:
    """A row's reward does not depend on rows that were judged before: other answers to the same prompts change nothing."""
    harness = subject.harness()
    rollout = harness.batch("rollout")
    steady(harness, rollout)
    for alone, after in before_and_after(harness, rollout):
        same(alone, after, "after other answers to the same prompts were judged")
    return None


@law("reward")
def late_answers(subject: Subject) -> str | None:
    """Rows whose answers come late, in another order, keep their own rewards."""
    harness, rollout = asking(subject)
    in_order = steady(harness, rollout)
    if not all(alike(*pair) for pair in before_and_after(harness, rollout)):
        raise NotApplicable("earlier answers change later ones here; see `earlier-rows`")
    harness.service.late = True
    try:
        same(in_order, worth(harness, rollout), "with the last row answered first")
    finally:
        harness.service.late = False
    return None


@law("reward")
def failed_answers(subject: Subject) -> str | None:
    """A row for which the service fails is not judged, and the other rows keep their rewards."""
    harness, rollout = asking(subject)
    value_B, ok_B = steady(harness, rollout)
    down_B = torch.zeros(len(rollout), dtype=torch.bool)
    down_B[torch.arange(1, len(rollout), 3)] = True
    harness.service.down = set(rollout.sample_B[down_B].tolist())
    try:
        value, ok = worth(harness, rollout)
    finally:
        harness.service.down = ()
    taken = ok & down_B
    if bool(taken.any()):
        row = int(taken.nonzero()[0])
        raise Broken(
            f"{int(taken.sum())} of {int(down_B.sum())} rows without an answer count as judged, with reward {float(value[row]):.4g} "
            "for the first; return the Term of ctx.each, or pass its ok_B on"
        )
    if relative(harness):
        return "the rows without an answer are not judged; those beside them may differ"
    rest = ~down_B
    same((value_B[rest], ok_B[rest]), (value[rest], ok[rest]), "with the service failing for other rows")
    return None
