"""`hookline compare`: does A beat B?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import hookline
from hookline import Argument, Command, Out
from hookline_plugins.commands.figures import plain
from hookline_plugins.report import comparison


class Compare(Command):
    """Does A beat B? Configurations over seeds, their paired differences with intervals, and curves."""

    class Config(hookline.Config):
        runs: Annotated[tuple[str, ...], Argument("RUN…")]
        """Run directories, or sweeps; each perhaps LABEL=DIR."""
        metric: str | None = None
        """E.g. eval/keyword-coverage."""
        phase: str | None = None
        """Default: the last phase that has the figure."""
        out: str | None = None
        """Write compare.json, .md, .html and figures here."""

    def run(self, out: Out) -> int:
        found = hookline.compare(self.config.runs, metric=self.config.metric, phase=self.config.phase)
        files = comparison.write(found, Path(self.config.out)) if self.config.out else []
        out.value(plain(found))
        out.text(comparison.show(found))
        if files:
            out.text(f"\nwritten: {', '.join(map(str, files))}")
        return 0
