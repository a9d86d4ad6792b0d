"""Krippendorff's α: how far annotators agree beyond chance. Pure functions; A annotators, U units, C values.

A unit is what is judged: a comparison of an item, a mark of a candidate on an axis. Units with one answer say nothing about
agreement and do not count. K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hookline.errors import DataError
from hookline.runs.samples import Floats
from hookline.study.intervals import DRAWS, Estimate, Scores, location

__all__ = ["Agreement", "Level", "draws_for", "krippendorff", "unit_interval"]

Level = Literal["nominal", "ordinal", "interval", "ratio"]
LARGE = 20_000
"""The number of units from which an interval is the normal one: the bootstrap's matrix would not fit, and they are equal."""


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's α with its 95 % interval over units; NaN with a reason where it is not defined."""

    value: float
    """1: all agree; 0: as chance; below 0: less than chance."""
    low: float
    """The lower end of the interval."""
    high: float
    """The upper end."""
    level: Level
    """How values are compared: as names, ranks, differences or ratios."""
    units: int
    """The units with two answers or more."""
    reason: str = ""
    """Why the value is NaN; empty if it is not."""


def unit_interval(value: float, part_U: Floats) -> Estimate:
    """The 95 % interval of a figure over drawn units, from what each unit adds to it (mean 0, `intervals.jackknife`)."""
    units = len(part_U)
    if not math.isfinite(value) or units < 2:
        return Estimate(value, math.nan, math.nan)
    if units > LARGE:
        half = 1.959964 * float(part_U.std()) / math.sqrt(units)
        return Estimate(value, value - half, value + half)
    return location(Scores(np.array([value]), part_U[None] - part_U.mean()), draws_for(units))


def draws_for(units: int) -> int:
    """The number of bootstrap draws for which the matrix of draws and units stays small."""
    return max(1000, min(DRAWS, 4_000_000 // units))


def krippendorff(values_AU: Any, level: Level) -> Agreement:
    """α = 1 − D_o / D_e over units with two answers or more.

    values_AU: [A, U] numbers, NaN where an annotator gave no answer; nominal values may be any codes. Raises DataError for
    infinite values, and for negative values at the level `ratio`, which has a zero.
    """
    values_AU = np.atleast_2d(np.asarray(values_AU, np.float64))
    if np.isinf(values_AU).any():
        raise DataError("an answer is infinite", "give every answer a number, or NaN where there is none")
    if level == "ratio" and (values_AU < 0).any():
        raise DataError("an answer is negative, and ratios need a zero", "use the level `interval`")
    known_AU = ~np.isnan(values_AU)
    kept_AU = values_AU[:, known_AU.sum(0) >= 2]
    units = kept_AU.shape[1]
    if not units:
        return _undefined(level, units, "no unit has two answers")
    value_C, code = np.unique(kept_AU[~np.isnan(kept_AU)], return_inverse=True)
    unit = np.broadcast_to(np.arange(units), kept_AU.shape)[~np.isnan(kept_AU)]
    count_UC = np.zeros((units, len(value_C)))
    np.add.at(count_UC, (unit, code), 1)
    if len(value_C) < 2:
        return _undefined(level, units, "all answers are the same, so chance would agree as much")
    return _estimated(count_UC, value_C, level)


def _undefined(level: Level, units: int, reason: str) -> Agreement:
    return Agreement(math.nan, math.nan, math.nan, level, units, reason)


def _distance(value_C: Floats, total_C: Floats, level: Level) -> Floats:
    """[C, C]: δ² of two values. Ordinal: half of the answers at each end and all between count."""
    a, b = value_C[:, None], value_C[None]
    if level == "nominal":
        return np.asarray(a != b, np.float64)
    if level == "interval":
        return np.asarray((a - b) ** 2)
    if level == "ratio":
        total = a + b
        return np.asarray(np.divide(a - b, total, out=np.zeros_like(total), where=total > 0) ** 2)
    middle_C = np.cumsum(total_C) - total_C / 2
    return np.asarray((middle_C[:, None] - middle_C[None]) ** 2)


def _estimated(count_UC: Floats, value_C: Floats, level: Level) -> Agreement:
    answers_U = count_UC.sum(1)
    weighted_UC = count_UC / (answers_U[:, None] - 1)
    total_C = count_UC.sum(0)

    def alpha(observed: float, total_C: Floats, distance: Floats) -> float:
        n = total_C.sum()
        expected = total_C @ distance @ total_C
        return 1 - (n - 1) * observed / expected if expected > 0 else math.nan

    distance = _distance(value_C, total_C, level)
    observed_U = np.einsum("uc,cd,ud->u", weighted_UC, distance, count_UC)
    observed = float(observed_U.sum())
    value = alpha(observed, total_C, distance)
    units = len(count_UC)
    if units < 2:
        return Agreement(value, math.nan, math.nan, level, units)
    n, rest = total_C.sum(), total_C[None] - count_UC
    expected_U = np.einsum("uc,cd,ud->u", rest, distance, rest)
    with np.errstate(invalid="ignore", divide="ignore"):
        without_U = 1 - (n - answers_U - 1) * (observed - observed_U) / expected_U
    if not np.isfinite(without_U).all():
        return Agreement(value, math.nan, math.nan, level, units)
    found = unit_interval(value, (units - 1) * (value - without_U))
    return Agreement(value, found.low, min(found.high, 1.0), level, units)
