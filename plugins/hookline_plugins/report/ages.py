"""How old the weights are that wrote what was judged: optimiser steps of the policy between an answer's draw and its use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hookline import Column, Run, Table
from hookline_plugins.report.page import Figure
from hookline_plugins.report.words import percent

Json = dict[str, Any]


def gather(run: Run, rows: Sequence[Json]) -> list[Json]:
    """For each phase that collected judgements of the run's own samples, or learned from them: {"phase", "does", "judgements",
    "age", "oldest", "new"}, where ages are in optimiser steps of the policy."""
    taken, starts = 0, {}
    collected: dict[str, list[int]] = {}
    found: list[Json] = []
    for spec in run.experiment["phases"]:
        name = spec["name"]
        starts[name] = taken
        if spec["feedback"]:
            collected[name] = _drawn(run, name, starts)
            found += _row(name, "collected", collected[name], taken)
        source = (spec["rollout"].get("options") or {}).get("from")
        if source and spec["update"]:
            read = [
                drawn
                for phase, some in collected.items()
                if source in (phase, phase.partition("@")[0])
                for drawn in some
            ]
            found += _row(name, "learned from", read, taken)
        if spec["update"] and not spec["model"].get("head"):
            taken += round(sum(row["metrics"].get("optimiser_steps", 0) for row in rows if row["phase"] == name))
    return found


def _drawn(run: Run, phase: str, starts: Mapping[str, int]) -> list[int]:
    """For each judgement that a phase collected, after how many optimiser steps the newest of its candidates was drawn."""
    file = run.directory / "phases" / phase / "data.jsonl"
    if not file.exists():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        by = [one.get("by") or {} for one in json.loads(line)["candidates"]]
        own = [starts[one["phase"]] + (one.get("version") or 0) for one in by if one.get("phase") in starts]
        found += [max(own)] if own else []
    return found


def _row(phase: str, does: str, drawn: Sequence[int], now: int) -> list[Json]:
    ages = [now - one for one in drawn]
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
