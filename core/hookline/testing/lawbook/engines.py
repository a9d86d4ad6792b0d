"""Laws for engines: an answer depends only on the sample's seed and id, and the completion describes it correctly."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Sequence
from typing import Any

from hookline.batch.stages import Sampling
from hookline.contract.engine import Completion, Engine, Request
from hookline.testing.harness import Harness
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law

LONGEST = 6
CLOSE = 1e-4
"""Allowed difference of a sample's log-probs, alone and among others: products of other sizes round differently."""


def drawn(subject: Subject, harness: Harness, samples: Sequence[int], **wishes: Any) -> dict[int, Completion]:
    """Sample id → its completion; all requests wait at the same time."""
    [prompt, *_] = [harness.tokenizer.prompt("a b c")]
    engine = harness.slot.component.another()
    assert isinstance(engine, Engine)
    asked, ends = {"sampling": Sampling(), **wishes}, harness.tokenizer.ends

    async def all_of_them() -> list[Completion]:
        requests = [
            Request(role="policy", prompt=prompt, sample=sample, seed=7, max_new_tokens=LONGEST, ends=ends, **asked)
            for sample in samples
        ]
        return list(await asyncio.gather(*map(engine.draw, requests)))

    try:
        engine.setup(harness.loop.ctx.bound(harness.slot))
        return dict(zip(samples, harness.runner.run(all_of_them())))
    finally:
        engine.close()


def logprobs(one: Completion) -> list[float]:
    """The log-prob of each token; empty if the engine does not know them."""
    return [] if one.logprobs is None else one.logprobs.tolist()


@law("engine", alone=True)
def draws_repeat(subject: Subject) -> str | None:
    """A sample's answer depends only on its seed and sample id: not on other samples or the order of requests."""
    harness = subject.harness()
    together = drawn(subject, harness, [3, 1, 4, 5])
    for sample, one in together.items():
        for alone in (drawn(subject, harness, [sample])[sample], drawn(subject, harness, [9, sample])[sample]):
            if alone.token_ids.tolist() != one.token_ids.tolist():
                raise Broken(
                    f"sample {sample} is {one.token_ids.tolist()} among others and {alone.token_ids.tolist()} otherwise"
                )
            if any(abs(a - b) > CLOSE for a, b in zip(logprobs(alone), logprobs(one))):
                raise Broken(f"the log-probs of sample {sample} depend on the other samples")
    return f"{len(together)} samples"


@law("engine", alone=True)
def exact(subject: Subject) -> str | None:
    """An engine that gives `exact` draws a sample with the same bits alone, among others, and in any order."""
    harness = subject.harness()
    if "exact" not in harness.slot.gives:
        raise NotApplicable("the engine does not give exact")
    together = drawn(subject, harness, range(7))
    for order in ([2], [6, 3], list(range(6, -1, -1))):
        for sample, one in drawn(subject, harness, order).items():
            if one.token_ids.tolist() != together[sample].token_ids.tolist():
                raise Broken(f"sample {sample} has other tokens among the samples {order} than among 0 to 6")
            gap = max((abs(a - b) for a, b in zip(logprobs(one), logprobs(together[sample]))), default=0.0)
            if gap:
                raise Broken(f"the log-probs of sample {sample} differ by {gap:.2g} among the samples {order} and among 0 to 6")
    return f"{len(together)} samples"


@law("engine", alone=True)
def whole_completions(subject: Subject) -> str | None:
    """A completion has a log-prob and a version for each token, is not too long, and says why it ended."""
    for sample, one in drawn(subject, subject.harness(), [0, 1, 2, 3]).items():
        parts = (one.token_ids, one.versions, one.token_ids if one.logprobs is None else one.logprobs)
        counts = {len(part) for part in parts}
        if len(counts) > 1:
            raise Broken(f"sample {sample} has {sorted(counts)} token ids, log-probs and versions")
        if not 0 < len(one.token_ids) <= LONGEST:
            raise Broken(f"sample {sample} has {len(one.token_ids)} tokens; expected 1 to {LONGEST}")
        if not all(math.isfinite(value) and value <= CLOSE for value in logprobs(one)):
            raise Broken(f"sample {sample} has log-probs {logprobs(one)}")
        if one.finish_reason not in ("stop", "length"):
            raise Broken(f"sample {sample} ended with '{one.finish_reason}'; use `stop` or `length`")
    return None


@law("engine", alone=True)
def kept_ids(subject: Subject) -> str | None:
    """An engine that gives `kept-ids` lists for each token the ids that top-k kept, including the token."""
    harness = subject.harness()
    if "kept-ids" not in harness.slot.gives:
        raise NotApplicable("the engine does not give kept-ids")
    for sample, one in drawn(subject, harness, [0, 1], sampling=Sampling(top_k=3)).items():
        kept = one.kept_ids
        if kept is None or len(kept.offsets) != len(one.token_ids) + 1:
            raise Broken(f"sample {sample} was cut to 3 ids and does not list the kept ids of each token")
        sets = [kept.ids[a:b].tolist() for a, b in itertools.pairwise(kept.offsets.tolist())]
        if not all(token in ids and len(ids) <= 3 for token, ids in zip(one.token_ids.tolist(), sets)):
            raise Broken(f"sample {sample} has tokens outside its kept ids, or more than 3 kept ids")
    return None
