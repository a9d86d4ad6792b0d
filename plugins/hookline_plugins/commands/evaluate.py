"""`hookline eval`: evaluates a finished phase's model again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

import hookline
from hookline import Argument, Command, Out


class Evaluate(Command):
    """Evaluate a run's model again, or any model folder with --experiment, with bootstrap intervals."""

    class Config(hookline.Config):
        run: Annotated[str, Argument("RUN")]
        """A run directory; with --experiment, a run or a transformers folder."""
        phase: str | None = None
        """The phase whose model is evaluated; default: the last finished phase."""
        rows: int | None = Field(None, ge=1)
        """Number of rows; default: as in the experiment."""
        experiment: str | None = None
        """An experiment file, whose evaluations are asked instead of the run's own."""

    def run(self, out: Out) -> int:
        found = hookline.evaluate(self.config.run, self.config.phase, self.config.rows, self.config.experiment)
        out.value(found)
        out.text(f"{'evaluation':<16} {'figure':<24} {'value':>10}   95 % interval       rows")
        for f in found:
            value = "unknown" if f["value"] is None else f"{f['value']:.4f}"
            known = f["low"] is not None and f["high"] is not None
            ends = f"[{f['low']:.4f}, {f['high']:.4f}]" if known else "unknown"
            out.text(f"{f['evaluation']:<16} {f['figure']:<24} {value:>10}   {ends}   {f['rows']:>6}")
        return 0
