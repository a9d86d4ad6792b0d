"""Laws for tasks: sources of rows, judges of answers, and small decision processes that can be explored completely."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from hookline.batch.stages import Record
from hookline.contract.task import Task
from hookline.data.rows import digest
from hookline.errors import PluginError
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law

MOST = 2000
"""Largest number of states of a process that are explored."""


def made(subject: Subject) -> Task:
    """A new instance, without the state of an earlier one."""
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
            raise Broken(f"split '{split}' differs at the second call; use a fixed seed")
    return ", ".join(f"{split}: {len(rows)} rows" for split, rows in first.items())


@law("task")
def readable(subject: Subject) -> str | None:
    """Every row is a mapping with a `prompt` or a `text`, these are text, and the row can be stored as JSON."""
    for split, rows in rows_of(subject).items():
        for number, row in enumerate(rows):
            where = f"split '{split}' row {number + 1}"
            if not isinstance(row, Mapping) or not {"prompt", "text"} & row.keys():
                raise Broken(f"{where} has no `prompt` and no `text`")
            wrong = [k for k in ("prompt", "text", "completion") if k in row and not isinstance(row[k], str)]
            if wrong:
                raise Broken(f"{where}: '{wrong[0]}' is not text")
            try:
                json.dumps(row, allow_nan=False)
            except (TypeError, ValueError) as err:
                raise Broken(f"{where} cannot be stored as JSON: {err}") from None
    return None


@law("task")
def held_out(subject: Subject) -> str | None:
    """No row of `heldout` is in `train`."""
    rows = rows_of(subject)
    if made(subject).process() is not None:
        raise NotApplicable("the task has a decision process, so all its states are known and none can be held out")
    if not {"train", "heldout"} <= rows.keys():
        raise NotApplicable("the task has no splits `train` and `heldout`")

    def shown(split: str) -> set[str]:
        return {str(row.get("prompt", row.get("text"))) for row in rows[split]}

    both = shown("train") & shown("heldout")
    if both:
        raise Broken(f"{len(both)} rows are in both splits, e.g. '{min(both)[:60]}'")
    return None


@law("task")
def judges(subject: Subject) -> str | None:
    """The reward of any answer is a finite number, and is the same at each call."""
    task = made(subject)
    asked = 0
    for row in (rows[0] for rows in rows_of(subject).values()):
        if "prompt" not in row:
            continue
        for answer in (str(row.get("completion", "")), "", "zzz zzz", str(row["prompt"])):
            try:
                one, two = task.reward(row, answer), made(subject).reward(row, answer)
            except PluginError:
                raise NotApplicable("the task judges no answers") from None
            if not isinstance(one, int | float) or not math.isfinite(one):
                raise Broken(f"the reward of '{answer[:40]}' is {one!r}")
            if one != two:
                raise Broken(f"the reward of '{answer[:40]}' is {one:g}, then {two:g}")
            asked += 1
    return f"{asked} answers" if asked else None


@law("task")
def process(subject: Subject) -> str | None:
    """The decision process is valid: probabilities sum to 1, and what follows depends only on state and action."""
    world = made(subject).process()
    if world is None:
        raise NotApplicable("the task has no decision process")

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
                raise Broken(
                    f"what follows '{action}' in {state!r} differs at the second call; draw nothing at random here"
                )
            for _, new, reward in after:
                if not math.isfinite(reward):
                    raise Broken(f"'{action}' in {state!r} has the reward {reward}; rewards must be finite")
                if new not in known and len(known) < MOST:
                    known[new] = None
                    queue.append(new)
    return f"{len(known)} states"
