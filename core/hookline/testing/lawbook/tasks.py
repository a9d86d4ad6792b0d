"""Laws for tasks: sources of rows, judges of answers, and small worlds that can be known whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from hookline.batch.stages import Record
from hookline.contract.task import Task
from hookline.data.sources import digest
from hookline.errors import PluginError
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law

MOST = 2000
"""States of a process that are looked at."""


def made(subject: Subject) -> Task:
    """A fresh instance, which remembers nothing of an earlier one."""
    task = subject.cls(subject.cls.Config.model_validate(subject.options))
    assert isinstance(task, Task)
    task.instance = subject.offer.name
    return task


@cache
def rows_of(subject: Subject) -> dict[str, tuple[Record, ...]]:
    task = made(subject)
    return {split: tuple(task.rows(split)) for split in task.splits}


@law("task")
def repeatable(subject: Subject) -> str | None:
    """A split holds the same rows at each call, and in each process."""
    first, task = rows_of(subject), made(subject)
    for split, rows in first.items():
        if not rows:
            raise Broken(f"split '{split}' is empty")
        if digest(rows) != digest(tuple(task.rows(split))) or digest(rows) != digest(tuple(task.rows(split))):
            raise Broken(f"split '{split}' is another at the second call; seed what it draws")
    return ", ".join(f"{split}: {len(rows)} rows" for split, rows in first.items())


@law("task")
def readable(subject: Subject) -> str | None:
    """Every row is a mapping with a `prompt` or a `text`, its texts are text, and all of it can be kept as JSON."""
    for split, rows in rows_of(subject).items():
        for number, row in enumerate(rows):
            where = f"split '{split}' row {number + 1}"
            if not isinstance(row, Mapping) or not {"prompt", "text"} & row.keys():
                raise Broken(f"{where} has neither `prompt` nor `text`")
            wrong = [k for k in ("prompt", "text", "completion") if k in row and not isinstance(row[k], str)]
            if wrong:
                raise Broken(f"{where}: '{wrong[0]}' is no text")
            try:
                json.dumps(row, allow_nan=False)
            except (TypeError, ValueError) as err:
                raise Broken(f"{where} cannot be kept as JSON: {err}") from None
    return None


@law("task")
def held_out(subject: Subject) -> str | None:
    """No row of `heldout` stands in `train`."""
    rows = rows_of(subject)
    if made(subject).process() is not None:
        raise NotApplicable("its whole world is known, and there is nothing to hold out")
    if not {"train", "heldout"} <= rows.keys():
        raise NotApplicable("it has no splits `train` and `heldout`")

    def shown(split: str) -> set[str]:
        return {str(row.get("prompt", row.get("text"))) for row in rows[split]}

    both = shown("train") & shown("heldout")
    if both:
        raise Broken(f"{len(both)} rows stand in both, e.g. '{min(both)[:60]}'")
    return None


@law("task")
def judges(subject: Subject) -> str | None:
    """What it says an answer is worth is a finite number, the same at each call, for any answer."""
    task = made(subject)
    asked = 0
    for row in (rows[0] for rows in rows_of(subject).values()):
        if "prompt" not in row:
            continue
        for answer in (str(row.get("completion", "")), "", "zzz zzz", str(row["prompt"])):
            try:
                one, two = task.reward(row, answer), made(subject).reward(row, answer)
            except PluginError:
                raise NotApplicable("it judges no answers") from None
            if not isinstance(one, int | float) or not math.isfinite(one):
                raise Broken(f"'{answer[:40]}' is worth {one!r}")
            if one != two:
                raise Broken(f"'{answer[:40]}' is worth {one:g}, then {two:g}")
            asked += 1
    return f"{asked} answers" if asked else None


@law("task")
def process(subject: Subject) -> str | None:
    """Its decision process is one: probabilities sum to 1, what follows depends on state and action alone."""
    world = made(subject).process()
    if world is None:
        raise NotApplicable("it shows no decision process")

    def sums(what: str, probabilities: list[float]) -> None:
        if min(probabilities, default=0.0) < 0 or abs(sum(probabilities) - 1) > 1e-6:
            raise Broken(f"probabilities of {what} sum to {sum(probabilities):.6g}")

    starts = list(world.starts())
    sums("the starts", [p for p, _ in starts])
    known: dict[Any, None] = dict.fromkeys(state for _, state in starts)
    for state in (queue := list(known)):
        actions = dict(world.actions(state))
        if actions:
            sums(f"actions in {state!r}", list(actions.values()))
        for action in actions:
            after = list(world.step(state, action))
            sums(f"what follows '{action}' in {state!r}", [p for p, _, _ in after])
            if after != list(world.step(state, action)):
                raise Broken(f"what follows '{action}' in {state!r} is another at the second call; draw nothing here")
            for _, new, reward in after:
                if not math.isfinite(reward):
                    raise Broken(f"'{action}' in {state!r} pays {reward}")
                if new not in known and len(known) < MOST:
                    known[new] = None
                    queue.append(new)
    return f"{len(known)} states"
