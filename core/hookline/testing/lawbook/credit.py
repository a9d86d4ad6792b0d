"""Laws for advantages about what a row's credit may depend on: its own group, and nothing that the credited token decided."""

from __future__ import annotations

from dataclasses import replace

import torch

from hookline.batch.stages import Advantaged, Scored
from hookline.contract.check import hook_methods
from hookline.testing.harness import Harness
from hookline.testing.lawbook.batches import apart, groups_of
from hookline.testing.lawbook.columns import LIMIT
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law

FAR = 0.3
"""How far trained weights are moved, as noise per entry, so that new heads do not give 0 everywhere."""


def crediting(subject: Subject) -> tuple[Harness, Scored]:
    """The harness of a component that answers hookline_advantage, and the batch it receives."""
    if hook_methods(subject.cls).get("hookline_advantage", {}).get("wrapper", True):
        raise NotApplicable("the component answers no hookline_advantage")
    harness = subject.harness()
    scored = harness.batch("score")
    if not isinstance(scored, Scored):
        raise NotApplicable("the rows have no rewards")
    return harness, scored


def credit(harness: Harness, scored: Scored, away: float = 0.0) -> Advantaged:
    """The component's answer, with the trained weights moved by `away`."""
    harness.restore()
    with harness.moved(away):
        found: Advantaged = harness.again("hookline_advantage", scored=scored)
    return found


@law("advantage")
def own_group(subject: Subject) -> str | None:
    """If groups are needed, rewards of other groups change no advantage."""
    harness, scored = crediting(subject)
    if "groups" not in harness.component.needs:
        raise NotApplicable("the component needs no groups")
    groups = groups_of(scored)
    if len(groups) < 2:
        raise NotApplicable("the harness's rows are one group")
    plain = credit(harness, scored)
    other_B = scored.group_B != groups[0]
    raised_BT = torch.where(other_B[:, None] & scored.mask_BT, 3.0 * scored.reward_BT + 1.0, scored.reward_BT)
    changed = credit(harness, replace(scored, reward_BT=raised_BT))
    distance = apart(plain.advantage_BT[~other_B], changed.advantage_BT[~other_B])
    if distance > LIMIT:
        raise Broken(
            f"with other rewards in other groups, advantages of an unchanged group differ by {distance:.2g} of the largest; "
            "compare a row with rows of its own group only"
        )
    return None


@law("advantage")
def own_token(subject: Subject) -> str | None:
    """A baseline does not see the token it is for: with equal rewards, another last token changes no advantage."""
    harness, scored = crediting(subject)
    at_T = torch.arange(scored.mask_BT.shape[1])
    last_B = torch.where(scored.mask_BT, at_T, -1).max(1).values
    last_BT = at_T == last_B[:, None]
    words = harness.tokenizer.vocabulary
    other_BT = torch.where(last_BT, (scored.token_ids_BT + 1 + scored.token_ids_BT % 3) % words, scored.token_ids_BT)
    plain = credit(harness, scored, away=FAR)
    changed = credit(harness, replace(scored, token_ids_BT=other_BT), away=FAR)
    distance = apart(plain.advantage_BT, changed.advantage_BT)
    if distance > LIMIT:
        raise Broken(
            f"with another token at the end of each answer and equal rewards, advantages differ by {distance:.2g} of the largest; "
            "a baseline that sees the token takes away the token's own credit: read it before the token"
        )
    return None
