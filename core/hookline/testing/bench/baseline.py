"""Compare two measurements: which of our kernels lost speed against torch eager since the stored one.

Ratios are compared, not times: another machine, or a busy one, changes both sides of a ratio.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hookline.errors import DataError
from hookline.testing.bench.cases import OURS

__all__ = ["LOSS", "Loss", "losses", "name_of", "stored_kernels"]


LOSS = 0.05
"""A ratio that is smaller than the stored ratio by more than this share is a loss."""
Loss = tuple[str, float, float]
"""Name, ratio then, ratio now."""


def name_of(row: dict[str, Any]) -> str:
    return f"{row['op']} {row['what']} {row['shape']} {row['dtype']}"


def stored_kernels(path: Path) -> dict[str, Any]:
    """A measurement that --save or --out wrote. Raises DataError for anything else."""
    try:
        stored = json.loads(path.read_text())
        rows = stored["rows"]
        for row in rows:
            name_of(row)
            if row["by"] == OURS:
                for figure in ("ratio", "low", "high"):  # earlier releases wrote the ratio alone
                    float(row.get(figure, row["ratio"]))
        dict(stored.get("machine", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise DataError(
            f"{path} is not a stored measurement ({type(err).__name__}: {err})", "write one with --save FILE"
        ) from None
    return dict(stored)


def losses(rows: Sequence[dict[str, Any]], stored: dict[str, Any]) -> list[Loss]:
    """Our rows whose ratio fell by more than 5 % and by more than the turns of either measurement differ among themselves: what they
    gave does not overlap. Rows that only one measurement has are not compared."""
    then = {name_of(row): row for row in stored["rows"] if row["by"] == OURS}
    found = []
    for now in rows:
        before = then.get(name_of(now)) if now["by"] == OURS else None
        if before is None:
            continue
        clear = now.get("high", now["ratio"]) < before.get("low", before["ratio"])
        if clear and now["ratio"] < before["ratio"] * (1 - LOSS):
            found.append((name_of(now), before["ratio"], now["ratio"]))
    return found
