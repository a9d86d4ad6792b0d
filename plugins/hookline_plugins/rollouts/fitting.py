"""Which rows of a dataset fit into a number of tokens; the others are counted, and left out aloud."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from hookline import Context, DataError, Encoded

__all__ = ["fitting"]


def fitting(ctx: Context, source: Any, row: Callable[[int], Encoded], longest: int, what: str = "rows") -> array[int]:
    """The indices of the rows with at most `longest` tokens. Raises DataError if there are none.

    row: gives the row at an index, and raises DataError for one that cannot be used. what: what rows are called in messages.
    """
    found = array("q", (i for i in range(len(source)) if len(row(i)) <= longest))
    if not found:
        raise DataError(
            f"{source.name}: 0 of {len(source)} {what} fit into {longest} tokens",
            "set `overlong: truncate`, or build the model with a longer context",
        )
    if left := len(source) - len(found):
        ctx.run.notice(
            f"{source.name}: {left} of {len(source)} {what} are longer than {longest} tokens and were left out"
        )
    return found
