"""Laws for sources of judgements."""

from __future__ import annotations

import json
from typing import Any

import torch

from hookline.batch.stages import Batch
from hookline.contract.judgement import Judgement
from hookline.testing.harness import Harness
from hookline.testing.lawbook.batches import groups_of
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law


def judged(harness: Harness, scored: Batch) -> list[Judgement]:
    found: Any = harness.ask("hookline_judge", scored=scored)
    return [judgement for _, judgement in found]


def by_sample(scored: Batch, judgements: list[Judgement]) -> list[tuple[tuple[int, ...], str]]:
    """Sample ids and what was said about them, which do not depend on the order of rows."""
    return sorted((tuple(int(scored.sample_B[row]) for row in one.judged), repr(one.said)) for one in judgements)


@law("feedback")
def one_prompt(subject: Subject) -> str | None:
    """A judgement compares answers to one prompt, names its annotator, and can be stored as JSON."""
    harness = subject.harness()
    scored = harness.batch("score")
    judgements = judged(harness, scored)
    if not judgements:
        raise Broken(f"there is no judgement for {len(scored)} rows in {len(groups_of(scored))} groups")
    for judgement in judgements:
        groups = {int(scored.group_B[row]) for row in judgement.judged}
        if len(groups) > 1:
            raise Broken(f"a judgement ranks answers to {len(groups)} prompts")
        if not judgement.annotator:
            raise Broken("a judgement has no `annotator`")
        if judgement.gold is not None and len(judgement.gold) != len(judgement.judged):
            raise Broken(f"a judgement has {len(judgement.gold)} gold values for {len(judgement.judged)} rows")
        try:
            json.dumps([judgement.gold, dict(judgement.detail)], allow_nan=False)
        except (TypeError, ValueError) as err:
            raise Broken(f"a judgement cannot be stored as JSON: {err}") from None
    return f"{len(judgements)} judgements"


@law("feedback")
def permutation(subject: Subject) -> str | None:
    """The order of prompts in a batch does not matter."""
    harness = subject.harness()
    scored = harness.batch("score")
    groups = groups_of(scored)[::-1]
    shuffled = scored.rows(torch.cat([(scored.group_B == group).nonzero()[:, 0] for group in groups]))
    if by_sample(scored, judged(harness, scored)) != by_sample(scored, judged(harness, scored)):
        raise NotApplicable(
            "two equal questions get different answers, so two answers cannot be compared; see `deterministic`"
        )
    one, other = by_sample(scored, judged(harness, scored)), by_sample(shuffled, judged(harness, shuffled))
    if one != other:
        changed = len(set(one) ^ set(other))
        raise Broken(f"with the prompts in another order {changed} of {len(one) + len(other)} judgements differ")
    return None


@law("feedback")
def deterministic(subject: Subject) -> str | None:
    """Two calls with the same rows give the same judgements."""
    harness = subject.harness()
    scored = harness.batch("score")
    if by_sample(scored, judged(harness, scored)) != by_sample(scored, judged(harness, scored)):
        raise Broken("the second answer differs; draw from ctx.rng(purpose, sample id)")
    return None
