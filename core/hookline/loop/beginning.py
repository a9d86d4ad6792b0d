"""What a phase's beginning already shows: a first step that teaches nothing, and evaluation rows that training reads too."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch

from hookline.batch.columns import sum_shared
from hookline.batch.stages import Rollout, Scored
from hookline.contract.fields import marked
from hookline.data.names import is_task
from hookline.data.rows import Rows
from hookline.errors import shorten
from hookline.plan.plan import PlannedEvaluation, PlannedPhase
from hookline.registry.slot import Slot
from hookline.tokens.tokenizer import Tokenizer
from hookline.world.world import World

__all__ = ["first_step", "shared_rows"]

MANY = 0.9
"""The share of answers that are cut off from which the first step is worth a notice."""
MOST_ROWS = 100_000
"""Rows of training data that are compared with those of an evaluation; parsing more would delay the start."""


def first_step(phase: PlannedPhase, batch: Rollout, tokenizer: Tokenizer, world: World) -> Iterator[str]:
    """Sentences about answers that never end, or whose rewards have nothing to teach, in the first step of a phase."""
    drawn = [reason for reason in batch.finish_reason if reason != "recorded"]
    reasons = sum((Counter(part) for part in world.gather(drawn, "the first step's answers")), Counter[str]())
    total = _totals(phase, batch, world)
    answers, name = sum(reasons.values()), phase.spec.name
    if answers:
        yield from _ends(phase, reasons, answers, tokenizer)
    if total is None:
        return
    rewards = " + ".join(slot.instance for slot in phase.rewards)
    total_E, group_E = total
    if answers and not bool(total_E.any()):
        yield (
            f"in the first step of phase '{name}', the reward ({rewards}) of every answer was 0; read a few answers in "
            "completions.jsonl, and check that the reward finds in them what it looks for"
        )
        return
    groups, where_E = torch.unique(group_E, return_inverse=True)
    if len(groups) == len(total_E) or not _compares(phase):
        return
    high = total_E.new_full((len(groups),), -torch.inf).scatter_reduce(0, where_E, total_E, "amax")
    low = total_E.new_full((len(groups),), torch.inf).scatter_reduce(0, where_E, total_E, "amin")
    if bool((high == low).all()):
        yield (
            f"in the first step of phase '{name}', the answers to each prompt had equal rewards ({rewards}), so there was "
            "nothing to learn; draw more samples_per_prompt, or choose other prompts or a reward with more steps"
        )


def _ends(phase: PlannedPhase, reasons: Mapping[str, int], answers: int, tokenizer: Tokenizer) -> Iterator[str]:
    """Whether answers end by themselves."""
    cut, name = reasons.get("length", 0), phase.spec.name
    room = getattr(phase.rollout.config, "max_new_tokens", None)
    limit = f"max_new_tokens ({room})" if room else "the length limit"
    if cut == answers:
        ends = ", ".join(repr(tokenizer.decode([end], special=True)) for end in tokenizer.ends)
        yield (
            f"in the first step of phase '{name}', no answer of {answers} ended by itself: none had an end token ({ends}) "
            f"before {limit}; raise max_new_tokens, and check that the model was trained to write that token"
        )
    elif cut >= MANY * answers:
        yield (
            f"in the first step of phase '{name}', {cut} of {answers} answers were cut off at {limit}, so that what is at "
            "their end is never judged; raise max_new_tokens, or let the model answer more briefly first"
        )


def _totals(phase: PlannedPhase, batch: Rollout, world: World) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The weighted sum of the named rewards of each episode, and its group, over all ranks; None without named rewards."""
    if not phase.rewards or not isinstance(batch, Scored):
        return None
    total_B = sum((slot.weight * batch.terms[slot.instance] for slot in phase.rewards), torch.zeros(len(batch)))
    total_B = sum_shared(total_B, batch.episode_B)
    total_B, episode_B, group_B = (
        world.cat(x_B, "the first step's rewards") for x_B in (total_B, batch.episode_B, batch.group_B)
    )
    _, where_B = torch.unique(episode_B, return_inverse=True)
    first = {int(where): row for row, where in reversed([*enumerate(where_B.tolist())])}
    rows = sorted(first.values())
    return total_B[rows], group_B[rows]


def _compares(phase: PlannedPhase) -> bool:
    """Whether the phase learns from differences between answers to one prompt."""
    needs = {need for slot in (phase.update, phase.advantage_by) if slot for need in slot.needs}
    return bool({"groups", "pairs"} & needs)


# -- evaluations that are not held out


def shared_rows(phase: PlannedPhase, rows: Callable[[str], Rows]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(evaluation, {"shared", "rows", "first"}) for each that reads rows of which training reads some too.

    A row is the same if its prompt is, or, without a prompt, the whole row. Rows that a rollout does not read and splits of tasks are
    not compared.
    """
    trained = _files(phase.rollout.every())
    if not trained or not phase.evaluations:
        return
    asked = {each.spec.name: _prompts(each, rows) for each in phase.evaluations}
    wanted = {key for prompts in asked.values() for key in prompts}
    seen = set()
    for slot, name in trained if wanted else ():
        found = rows(name)
        for index in range(min(len(found), MOST_ROWS)):
            key = _key(found.records[index])
            if key in wanted and slot.component.reads_row(found.records[index]):
                seen.add(key)
    for evaluation, prompts in asked.items():
        both = [key for key in prompts if key in seen]
        if both:
            yield evaluation, {"shared": len(both), "rows": len(prompts), "first": shorten(both[0], 80)}


def _files(slots: Iterator[Slot]) -> list[tuple[Slot, str]]:
    """The data names, apart from tasks, that components read, each with its component."""
    return [(slot, name) for slot in slots for name in marked(slot.config, "data").values() if not is_task(name)]


def _prompts(evaluation: PlannedEvaluation, rows: Callable[[str], Rows]) -> list[str]:
    """The prompts of the rows that an evaluation reads."""
    found = []
    for slot, name in _files(evaluation.rollout.every()):
        data = rows(name)
        read = (record for record in map(data.records.__getitem__, range(len(data))) if slot.component.reads_row(record))
        found += [_key(record) for record in islice(read, evaluation.spec.rows)]
    return found


def _key(record: Mapping[str, Any]) -> str:
    """What makes a row the same as another: its prompt, or the whole row."""
    prompt = record.get("prompt") or record.get("messages") or dict(record)
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str, ensure_ascii=False)
