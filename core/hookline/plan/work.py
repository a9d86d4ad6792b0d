"""An estimate of what each phase of a plan computes, from its options and a look at its data.

Options are read by the names that built-in components give them: `rows`, `samples_per_prompt`, `max_new_tokens` and `length`
of a rollout. A rollout without these options is assumed to be small; measured times later correct the estimate.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from hookline.contract.fields import Config, UpdateConfig, marked
from hookline.plan.plan import Plan, PlannedPhase
from hookline.registry.slot import Slot
from hookline.tokens.peek import usual_lengths
from hookline.tokens.tokenizer import Tokenizer

__all__ = ["PhaseWork", "Work", "works_of"]

BACKWARD = 3.0
"""Passes that a trained token costs: forward, and about twice that backward."""
UNKNOWN = (16.0, 16.0, 1)
"""Tokens of a prompt, of an answer, and answers per row, if nothing is known about the data."""
ROWS = 16.0


@dataclass(frozen=True)
class Work:
    """What a step, or an evaluation, computes: tokens that are read, trained on and drawn, and optimiser steps."""

    read: float = 0.0
    trained: float = 0.0
    drawn: float = 0.0
    optimiser_steps: float = 0.0

    @property
    def passes(self) -> float:
        """Passes of a token through a network, without those for drawing."""
        return self.read + BACKWARD * self.trained


@dataclass(frozen=True)
class PhaseWork:
    """The planned work of a phase."""

    name: str
    steps: int
    step: Work
    evaluation: Work = Work()
    """All evaluations that fall on one step."""
    evaluated: tuple[int, ...] = ()
    """The steps after which it is evaluated; 0 is before the first."""
    optimiser: str = ""
    """The optimiser's name; each optimiser has its own cost."""


@dataclass(frozen=True)
class Rows:
    """What a rollout gives: numbers of prompts and sequences, tokens per sequence, and how many of these are the answer."""

    prompts: float
    sequences: float
    tokens: float
    answer: float
    drawn: bool = False


Lengths = Callable[[str], tuple[float, float, int]]


def works_of(plan: Plan, tokenizer: Tokenizer) -> list[PhaseWork]:
    """The work of each phase, in the plan's order."""

    @functools.cache
    def lengths(name: str) -> tuple[float, float, int]:
        return usual_lengths(name, tokenizer, plan.catalogue) or UNKNOWN

    brought: dict[str, Rows] = {}
    found = []
    for phase in plan.phases:
        rows = brought[phase.spec.name] = _rows(phase.rollout, phase, brought, lengths)
        evaluation = _evaluation(phase, brought, lengths)
        optimiser = str(getattr(phase.update.config, "optimizer", "")) if phase.update else ""
        name, steps = phase.spec.name, phase.spec.steps
        found.append(PhaseWork(name, steps, _step(phase, rows), evaluation, _evaluated(phase), optimiser))
    return found


def _rows(rollout: Slot, phase: PlannedPhase, before: Mapping[str, Rows], lengths: Lengths) -> Rows:
    config = rollout.config
    number = _number(config, "rows") or ROWS
    new, length = _number(config, "max_new_tokens"), _number(config, "length")
    if length:
        return Rows(number, number, length, 0.0)
    source = next(
        (before[name] for name in map(phase.latest, marked(config, "phase").values()) if name in before), None
    )
    if source and not new:  # what an earlier phase collected: all its answers to a prompt
        return Rows(number, number * source.sequences / source.prompts, source.tokens, source.answer)
    prompt, answer, several = lengths(next(iter(marked(config, "data").values()), ""))
    if not new:
        return Rows(number, number * several, prompt + answer, answer)
    taught = [rows.answer for rows in before.values() if rows.answer and not rows.drawn]
    answer = min([new, *taught[-1:]])
    return Rows(number, number * (_number(config, "samples_per_prompt") or 1), prompt + answer, answer, drawn=True)


def _number(config: Config, option: str) -> float:
    """A component's option where it is a number; 0 where it has no such option."""
    value = getattr(config, option, 0)
    return float(value) if isinstance(value, int | float) else 0.0


def _step(phase: PlannedPhase, rows: Rows) -> Work:
    """Other models read each row once; the update trains the policy and, where an advantage asks for one, its critic."""
    tokens = rows.sequences * rows.tokens
    critic = phase.advantage is not None and "critic" in phase.advantage.needs
    read = tokens * (_others(phase.slots) + critic)
    work = Work(read=read, drawn=rows.sequences * rows.answer if rows.drawn else 0.0)
    config = phase.update.config if phase.update else None
    if not isinstance(config, UpdateConfig):
        return work
    steps = config.epochs * config.minibatches
    return replace(work, trained=tokens * config.epochs * (1 + critic), optimiser_steps=steps)


def _evaluation(phase: PlannedPhase, before: Mapping[str, Rows], lengths: Lengths) -> Work:
    read = drawn = 0.0
    for each in phase.evaluations:
        rows = _rows(each.rollout, phase, before, lengths)
        own = each.update is not None or any((_reads(slot) and not _reads_another(slot)) or "before" in slot.needs for slot in each.rewards)
        read += each.spec.rows * rows.tokens * (own + _others(each.rewards))
        drawn += each.spec.rows * rows.answer if rows.drawn else 0.0
    return Work(read=read, drawn=drawn)


def _others(slots: Sequence[Slot]) -> int:
    """How many models besides the policy the rewards and wrappers read."""
    return sum(_reads_another(slot) for slot in slots if slot.kind in ("reward", "wrapper"))


def _reads(slot: Slot) -> bool:
    return any(need in ("before", "after", "row") or need.startswith("head:") for need in slot.needs)


def _reads_another(slot: Slot) -> bool:
    """Whether a component reads the model of an earlier phase, or a model that it makes itself."""
    makes = any(given.startswith("role:") for given in slot.gives)
    return bool(marked(slot.config, "model")) or (_reads(slot) and bool(marked(slot.config, "phase") or makes))


def _evaluated(phase: PlannedPhase) -> tuple[int, ...]:
    steps, found = phase.spec.steps, set()
    for each in phase.evaluations:
        found |= {0, steps, *(range(each.spec.every, steps, each.spec.every) if each.spec.every else ())}
    return tuple(sorted(found))
