"""TensorBoard event files: one chart per figure and phase, over the phase's steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

import hookline
from hookline import Component, Run, hookimpl


class TensorBoard(Component):
    """Scalars `PHASE/FIGURE` over steps in RUN/tensorboard; `tensorboard --logdir RUN` shows them.

    After a resume the files are rewritten from the run's rows, so that no point occurs twice.
    """

    class Config(hookline.Config):
        samples: int = Field(8, ge=0)
        """Answers per evaluation, and per training step whose answers are kept, on the text page; 0 shows none."""
        flush_seconds: int = Field(10, ge=1)
        """Seconds that a point may wait in memory. Small updates sooner, large writes less often to slow disks."""

    writer: Any = None

    @hookimpl
    def hookline_run_started(self, run: Run) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        folder = run.directory / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self.writer = SummaryWriter(str(folder), flush_secs=self.config.flush_seconds)
        experiment = json.dumps(run.experiment, indent=1, ensure_ascii=False)
        self.writer.add_text("experiment", "\n".join("    " + text for text in experiment.splitlines()))
        for entry in run.evaluations():
            self._samples(entry["phase"], entry["step"], entry["name"], entry["samples"])
        for (phase, step), answers in by_step(run.completions()).items():
            self._completions(phase, step, answers)
        for row in run.rows():
            self._row(row)

    @hookimpl
    def hookline_row(self, row: Mapping[str, Any]) -> None:
        self._row(row)

    @hookimpl
    def hookline_samples(self, phase: str, step: int, name: str, samples: Sequence[Mapping[str, Any]]) -> None:
        self._samples(phase, step, name, samples)

    @hookimpl
    def hookline_completions(self, phase: str, step: int, completions: Sequence[Mapping[str, Any]]) -> None:
        self._completions(phase, step, completions)

    @hookimpl
    def hookline_run_finished(self) -> None:
        if self.writer:
            self.writer.close()

    def _row(self, row: Mapping[str, Any]) -> None:
        for name, value in {**row["metrics"], **row["timings"]}.items():
            self.writer.add_scalar(f"{row['phase']}/{name}", value, row["step"])

    def _samples(self, phase: str, step: int, name: str, samples: Sequence[Mapping[str, Any]]) -> None:
        shown = samples[: self.config.samples]
        if shown:
            self.writer.add_text(f"{phase}/{name}", table(shown), step)

    def _completions(self, phase: str, step: int, completions: Sequence[Mapping[str, Any]]) -> None:
        """Answers of a training step, as samples whose terms are their rewards and advantage."""
        samples = [
            {
                "prompt": answer["prompt"],
                "response": answer["completion"],
                "terms": {
                    name: value
                    for name, value in answer.items()
                    if name.startswith(("reward", "advantage")) and value is not None
                },
            }
            for answer in completions
        ]
        self._samples(phase, step, "completions", samples)


def by_step(completions: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    """(phase, step) → the answers that were kept of it."""
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for answer in completions:
        found.setdefault((answer["phase"], answer["step"]), []).append(answer)
    return found


def table(samples: Sequence[Mapping[str, Any]]) -> str:
    """Samples as a Markdown table. Text that the model wrote is escaped."""
    names = list(dict.fromkeys(name for sample in samples for name in sample["terms"]))
    lines = [["prompt", "response", *names], ["---"] * (2 + len(names))]
    for sample in samples:
        figures = [f"{sample['terms'][n]:.4g}" if n in sample["terms"] else "" for n in names]
        lines.append([plain(sample["prompt"]), plain(sample["response"]), *figures])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def plain(text: str) -> str:
    """Escape Markdown and HTML: every special character is written as a number."""
    return "".join(c if c.isalnum() or c in " ,.;:?" else f"&#{ord(c)};" for c in " ".join(text.split()))
