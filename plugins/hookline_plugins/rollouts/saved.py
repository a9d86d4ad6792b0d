"""Episodes written as rows of data, one file for each step, which a step that is repeated writes again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from hookline import Context

__all__ = ["save"]


def save(ctx: Context, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the episodes of this step, of all ranks, to `episodes/PHASE/STEP.jsonl` in the run's directory."""
    every = [row for part in ctx.gather(list(rows)) for row in part]

    def write() -> None:
        if not ctx.run.locked:  # a finished run is only read
            return
        folder = ctx.run.directory / "episodes" / ctx.phase
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{ctx.step + 1:06d}.jsonl"
        aside = path.with_suffix(".tmp")
        aside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in every), encoding="utf-8")
        os.replace(aside, path)

    ctx.main(write)
