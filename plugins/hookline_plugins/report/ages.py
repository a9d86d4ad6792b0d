"""How old the weights are that wrote what was judged: optimiser steps of the policy between an answer's draw and its use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from hookline import Column, Run, Table
from hookline_plugins.report.page import Figure
from hookline_plugins.report.words import percent

Json = dict[str, Any]


Line = tuple[tuple[str, int], ...]
"""The training that made some weights: each phase with the optimiser steps that it took."""


def gather(run: Run, rows: Sequence[Json]) -> list[Json]:
    """For each phase that collected judgements of the run's own samples, or learned from them: {"phase", "does", "judgements",
    "age", "oldest", "new"}, where ages are in optimiser steps of the policy.

    A phase that trains the policy is compared with the weights that it begins with, and a reward model with the newest policy.
    Judgements of another branch's samples have no age, since its weights did not become these; they are not counted.
    """
    newest: Line = ()
    begun: dict[str, Line] = {}
    ended: dict[str, Line] = {}
    collected: dict[str, list[list[tuple[str, int]]]] = {}
    found: list[Json] = []

    def row(name: str, does: str, judgements: Iterable[list[tuple[str, int]]], now: Line) -> list[Json]:
        ages = []
        for drawn in judgements:
            own = [
                0 if phase == name else _age((*begun[phase], (phase, step)), now)
                for phase, step in drawn
                if phase in begun
            ]
            ages += [min(age for age in own if age is not None)] if any(age is not None for age in own) else []
        return _row(name, does, ages)

    for spec in run.experiment["phases"]:
        name, rewards = spec["name"], bool(spec["model"].get("head"))
        begun[name] = ended[name] = ended.get(spec["model"].get("from") or "", newest)
        if spec["feedback"]:
            collected[name] = _drawn(run, name)
            found += row(name, "collected", collected[name], begun[name])
        source = (spec["rollout"].get("options") or {}).get("from")
        if source and spec["update"]:
            read = (one for phase, some in collected.items() if source in (phase, phase.partition("@")[0]) for one in some)
            found += row(name, "learned from", read, newest if rewards else begun[name])
        if spec["update"] and not rewards:
            taken = round(sum(row["metrics"].get("optimiser_steps", 0) for row in rows if row["phase"] == name))
            newest = ended[name] = (*begun[name], (name, taken))
    return found


def _age(drawn: Line, now: Line) -> int | None:
    """The optimiser steps from some weights to others; None if the first did not become the second."""
    drawn = tuple(one for one in drawn if one[1])  # a phase that took no step has the weights with which it began
    for (phase, steps), (other, most) in zip(drawn, now):
        if phase != other or steps > most:
            return None
    whole = all(one == other for one, other in zip(drawn[:-1], now))
    return sum(n for _, n in now) - sum(n for _, n in drawn) if whole and len(drawn) <= len(now) else None


def _drawn(run: Run, phase: str) -> list[list[tuple[str, int]]]:
    """For each judgement that a phase collected, what drew its candidates: a phase, and its optimiser steps until then."""
    file = run.directory / "phases" / phase / "data.jsonl"
    if not file.exists():
        return []
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    said = [[one.get("by") or {} for one in line["candidates"]] for line in lines]
    return [[(str(by["phase"]), int(by.get("version") or 0)) for by in several if by.get("phase")] for several in said]


def _row(phase: str, does: str, ages: Sequence[int]) -> list[Json]:
    if not ages:
        return []
    about = {"age": sum(ages) / len(ages), "oldest": max(ages), "new": ages.count(0) / len(ages)}
    return [{"phase": phase, "does": does, "judgements": len(ages), **about}]


def table(found: Sequence[Json]) -> Table:
    """The ages as a table, a line for each phase."""
    columns = (
        Column("phase"), Column("does", ""), Column("judgements"), Figure("age", "mean age"), Figure("oldest"),
        Figure("new", "of the newest weights", how=percent),
    )  # fmt: skip
    return Table("ages", columns, list(found), "Optimiser steps of the policy")
