"""What annotators say about a step's rows, as events in the phase's data."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from hookline.batch.stages import Rollout
from hookline.contract.feedback import Candidate, Event, Producer
from hookline.contract.judgement import Judgement
from hookline.contract.store import Item
from hookline.data.messages import prompt_messages
from hookline.errors import PluginError
from hookline.world.world import World

__all__ = ["events", "item_of"]


def events(
    judged: Sequence[tuple[str, Judgement | Event]],
    scored: Rollout,
    phase: str,
    step: int,
    sources: Sequence[str],
    world: World,
) -> list[dict[str, Any]]:
    """The events of all ranks, written as JSON, in the order in which the sources were asked.

    judged: the source's name and what it said. sources: the names of all sources, in that order.
    """
    mine = [_event(source, judgement, scored, phase, step).written() for source, judgement in judged]
    every = list(itertools.chain(*world.gather(mine, "the judgements")))
    return sorted(every, key=lambda entry: sources.index(entry["source"])) if world.size > 1 else every


def item_of(scored: Rollout, rows: Sequence[int], phase: str, step: int, run: str, **more: Any) -> Item:
    """Rows that answer one prompt as an item of a store, with the tokens as they were sampled and what wrote them.

    The same texts of another step are another item; a run that is resumed draws the same samples, and so makes the same item.
    """
    record, prompt_ids = scored.records[rows[0]], scored.prompt_ids(rows[0])
    candidates = tuple(_candidate(scored, row, None, phase, step, run) for row in rows)
    whole = json.dumps([prompt_ids, [one.model_dump(mode="json") for one in candidates]])
    asked = prompt_messages(record)
    prompt: Any = scored.prompt_text(rows[0]) if asked is None else asked
    name = hashlib.sha256(whole.encode()).hexdigest()[:32]
    with _recorded(f"phase '{phase}'"):
        return Item(**{"id": name, "prompt": prompt, "prompt_ids": prompt_ids, "candidates": candidates, "record": dict(record), **more})


@contextmanager
def _recorded(whose: str) -> Iterator[None]:
    """What the record of feedback refuses is an error of what gave it."""
    try:
        yield
    except ValidationError as err:
        why = err.errors()[0]
        where = f"{'.'.join(map(str, why['loc']))}: " if why["loc"] else "a judgement "
        said = why["msg"].removeprefix("Value error, ")
        raise PluginError(f"{whose}: {where}{said}", "see the fields of hookline.Event") from None


def _event(source: str, judgement: Judgement | Event, scored: Rollout, phase: str, step: int) -> Event:
    """One judgement with the tokens as they were sampled."""
    if isinstance(judgement, Event):
        return judgement.model_copy(update={"source": source})
    rows = judgement.judged
    gold = judgement.gold or (None,) * len(rows)
    with _recorded(f"feedback '{source}'"):
        return Event(
            prompt=scored.prompt_text(rows[0]),
            prompt_ids=tuple(scored.prompt_ids(rows[0])),
            candidates=tuple(_candidate(scored, row, worth, phase, step) for row, worth in zip(rows, gold)),
            answer=judgement.said,
            annotator=judgement.annotator, role=judgement.role, source=source, shown=tuple(range(len(judgement.rows))),
            record=dict(scored.records[rows[0]]), extra=dict(judgement.detail),
        )  # fmt: skip


def _candidate(scored: Rollout, row: int, worth: float | None, phase: str, step: int, run: str = "") -> Candidate:
    by = Producer(name=scored.source[row])
    if scored.behaviour is not None:
        version = int(scored.behaviour.version_BT[row].max()) if int(scored.length_B[row]) else None
        by = Producer(name=scored.source[row], run=run, phase=phase, step=step, version=version)
    return Candidate(
        text=scored.response_text(row),
        token_ids=tuple(scored.response_ids(row)),
        sample=int(scored.sample_B[row]),
        by=by,
        gold=worth,
    )
