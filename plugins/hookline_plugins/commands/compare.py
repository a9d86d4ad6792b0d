"""`hookline compare`: compares configurations over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import hookline
from hookline import Argument, CheckpointError, Command, ExperimentError, Out
from hookline_plugins.commands.figures import plain
from hookline_plugins.report import comparison
from hookline_plugins.report.against import against

SHORT = (
    "at", "amount", "configuration", "value", "interval", "difference", "difference_interval", "d", "chance", "p_holm", "shown",
)  # fmt: skip
"""Columns for people; CSV has all."""


class Compare(Command):
    """Does A beat B? Compare configurations over seeds, at equal steps, tokens and seconds, and test the differences."""

    class Config(hookline.Config):
        runs: Annotated[tuple[str, ...], Argument("RUN…")]
        """Run directories or sweeps, each optionally as LABEL=DIR."""
        metric: str | None = None
        """The figure to compare, e.g. eval/keyword-coverage."""
        phase: str | None = None
        """The phase to compare; default: the last phase that has the figure."""
        baseline: str | None = None
        """The label of the configuration that the others are compared with; default: the first."""
        out: hookline.LocalPath | None = None
        """Folder for compare.json, .md, .html and figures."""
        csv: hookline.LocalPath | None = None
        """Write the comparison with the baseline as CSV with all digits; - is the terminal."""
        latex: hookline.LocalPath | None = None
        """Write the comparison with the baseline as a LaTeX table (booktabs); - is the terminal."""

    def run(self, out: Out) -> int:
        config = self.config
        piped = [name for name, to in (("--csv", config.csv), ("--latex", config.latex)) if to == "-"]
        piped += ["--json"] if out.json else []
        if len(set(piped)) > 1:
            raise ExperimentError(f"{piped[0]} - and {piped[1]} both write to the terminal", "give one of them a file")
        found = hookline.compare(config.runs, metric=config.metric, phase=config.phase, baseline=config.baseline)
        table = against(found)
        files = comparison.write(found, Path(config.out)) if config.out else []
        for to, text in ((config.csv, table.csv()), (config.latex, table.only(*SHORT).latex())):
            if to == "-":
                out.text(text.rstrip("\n"))
            elif to:
                files.append(_write(Path(to), text))
        out.value(plain(found))
        if not piped:
            _show(found, out)
            if files:
                out.text(f"\nwritten: {', '.join(map(str, files))}")
        return 0


def _show(found: dict[str, Any], out: Out) -> None:
    out.text(comparison.show(found))
    if len(found["configurations"]) > 1:
        out.text("")
        against(found).only(*SHORT).show(out)
    for sentence in found["verdicts"]:
        out.text(f"\n{sentence}.")


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as err:
        raise CheckpointError(f"{path} cannot be written: {err.strerror}", "choose another file") from None
    return path
