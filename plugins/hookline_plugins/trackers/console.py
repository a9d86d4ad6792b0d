"""Shows the progress of a run: a live bar on a terminal, one block in a notebook, a few plain lines anywhere else."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

import hookline
from hookline import Component, Run, hookimpl
from hookline_plugins.report import words
from hookline_plugins.trackers.cell import Cell, in_notebook

FIGURES = ("accuracy", "reward", "kl", "truncated", "unjudged", "judgements")
"""Shown in this order if a row has them, after `nll` (or `loss`) and before evaluation figures."""
DRAWN = ("reward", "nll", "loss")
"""The first of these is drawn as a line in a notebook."""
STEPS, SECONDS = 10, 10.0
"""The total time is estimated after this number of steps, or after three steps that took this number of seconds."""
SHOWINGS = 4
"""How often in a phase drawn answers are shown."""
PROMPT, ANSWER = 80, 240
"""Characters of a prompt's end and of an answer's beginning that are shown."""


class Console(Component):
    """Prints progress and the main figures to standard output. Reports figures outside their healthy range once per phase."""

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {
            "logging_steps": "lines", "log_completions": "answers", "num_completions_to_print": "answers",
        }  # fmt: skip
        lines: int = Field(10, ge=1)
        """Without a terminal: lines per phase. As many additional lines may show evaluations."""
        figures: tuple[str, ...] = ()
        """Names of additional figures to show."""
        answers: int = Field(1, ge=0)
        """Answers that the policy drew in training, shown with their rewards after the first step and at about every
        quarter of a phase; 0 shows none. Which answers there are to show, the phase's `completions` says."""

    def __init__(self, config: hookline.Config) -> None:
        super().__init__(config)
        self.screen: Terminal | Plain | Cell = Plain()
        self.began = time.monotonic()
        self.phase_began = self.began
        self.steps = self.first_step = 0
        self.phase = ""  # the one whose last row has not come yet
        self.next_line = 0.0
        self.evaluation_lines = 0
        self.waiting: list[str] = []
        self.evaluated_at = 0
        self.next_answers = 0.0
        self.estimated = False
        self.in_all = ""
        self.next_estimate = 0.0
        self.alarmed: set[tuple[str, str]] = set()

    @hookimpl
    def hookline_run_started(self, run: Run) -> None:
        if in_notebook():
            self.screen = Cell()
        elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            self.screen = Terminal()

    @hookimpl
    def hookline_phase_started(self, run: Run, phase: str, steps: int, done: int) -> None:
        self._close(run)
        self.phase = phase
        spec = next(spec for spec in run.experiment["phases"] if spec["name"] == phase)
        self.steps, self.next_line, self.evaluation_lines, self.waiting = steps, 0.0, 0, []
        self.phase_began = time.monotonic()
        self.first_step, self.next_answers = done, 0.0
        goes_on = f", goes on after step {done}" if done else ""
        self.screen.say(f"{phase}: {steps} steps{goes_on}   {words.chain(spec)}{self._place(run, phase)}", "bold")
        self.screen.begin(phase, steps, done)

    @hookimpl
    def hookline_row(self, run: Run, row: Mapping[str, Any]) -> None:
        phase, step = row["phase"], row["step"]
        figures = self.figures_of(row)
        self._estimate(run, step)
        evaluated = [f"{name.removeprefix('eval/')} {words.number(value)}" for name, value in evaluation_of(row)]
        if isinstance(self.screen, Terminal | Cell):
            if evaluated:
                self.screen.say(f"  step {step}   held out: {'  '.join(evaluated)}")
            drawn = next((row["metrics"][name] for name in DRAWN if name in row["metrics"]), None)
            self.screen.advance(step, "  ".join(figures), self.in_all, drawn)
        else:
            self._plain_line(step, figures, evaluated)
        self._alarms(run, phase, row["metrics"])
        if step == self.steps:
            self._phase_done(run, phase)

    @hookimpl
    def hookline_completions(self, step: int, completions: Sequence[Mapping[str, Any]]) -> None:
        drawn = [answer for answer in completions if answer["finish_reason"] != "recorded"][: self.config.answers]
        if drawn and step >= self.next_answers:
            self.next_answers = step + self.steps / SHOWINGS
            for answer in drawn:
                self.screen.say(f"  step {step}   {answered(answer)}")

    @hookimpl(trylast=True)
    def hookline_run_finished(self, run: Run, status: str) -> None:
        if status == "finished":
            self._close(run)
        self.screen.end()
        took = words.duration(time.monotonic() - self.began)
        rows = run.rows()
        steps = sum(row["step"] > 0 for row in rows)
        tail = ""
        if status != "finished":
            saves = (save for folder in ("checkpoints", "phases") for save in (run.directory / folder).glob("[!.]*"))
            goes_on = "run the same command again to continue from the newest save"
            tail = f"; {goes_on if any(saves) else 'nothing was saved, so the same command begins again'}"
        self.screen.say(f"{status} in {took}, {steps} steps in all{tail}", "bold")
        phases = list(dict.fromkeys(row["phase"] for row in rows))
        shown = [(phase, self.first_and_last(rows, phase)) for phase in phases]
        width = max((len(phase) for phase, said in shown if said), default=0)
        for phase, said in shown:
            if said:
                self.screen.say(f"  {phase:{width}}   {'   '.join(said)}")
        self.screen.say(f"  run       {run.directory}")
        if status == "finished" and (run.directory / "report.html").exists():
            self.screen.say(f"  report    {run.directory / 'report.html'}")

    # -- the whole run

    def _place(self, run: Run, phase: str) -> str:
        """`   phase 2 of 6, about 5 min left in all`; empty if there is only one phase."""
        names = [spec["name"] for spec in run.experiment["phases"]]
        if len(names) == 1:
            return ""
        left = sum(run.seconds_left().values())
        return f"   phase {names.index(phase) + 1} of {len(names)}" + (
            f", {words.about(left)} left in all" if left else ""
        )

    def _estimate(self, run: Run, step: int) -> None:
        """Print an estimate of the total time once, after the first steps; later lines show the updated estimate."""
        taken, now = step - self.first_step, time.monotonic()
        early = taken < min(STEPS, self.steps) and (taken < 3 or now - self.phase_began < SECONDS)
        if (early and not self.estimated) or now < self.next_estimate:
            return
        left = run.seconds_left()
        self.next_estimate = now + 1.0
        if len(left) < 2:
            return
        self.in_all = f"{words.about(sum(left.values()))} in all" if sum(left.values()) else ""
        if not self.estimated and self.in_all:
            self.screen.say(f"  the whole run: {words.about(sum(left.values()))} left on this machine, first estimate")
        self.estimated = True

    # -- lines

    def figures_of(self, row: Mapping[str, Any]) -> list[str]:
        """`nll 3.21`, `kl 1.4`, …, `812 tokens/s`: the main figures of a row, without evaluations."""
        metrics = row["metrics"]
        names = [name for name in ("nll", "loss") if name in metrics][:1]
        names += [name for name in (*FIGURES, *self.config.figures) if name in metrics]
        said = [f"{name} {self._value(name, metrics[name])}" for name in dict.fromkeys(names)]
        if "tokens_per_second" in row["timings"]:
            said.append(f"{words.number(row['timings']['tokens_per_second'])} tokens/s")
        return said

    def _value(self, name: str, value: float) -> str:
        return f"{100 * value:.0f} %" if name == "truncated" and math.isfinite(value) else words.number(value)

    def _plain_line(self, step: int, figures: Sequence[str], evaluated: Sequence[str]) -> None:
        """Print a line at intervals. Evaluations are printed at once, or with the next line if there are many."""
        if evaluated:
            self.waiting, self.evaluated_at = list(evaluated), step
        due = step >= self.next_line or step == self.steps
        extra = bool(evaluated) and self.evaluation_lines < self.config.lines
        if not (due or extra):
            return
        if due:
            apart = max(1.0, self.steps / self.config.lines)
            self.next_line = apart * (math.floor(step / apart) + 1) if step else 1.0
        held_out = ""
        if self.waiting:
            self.evaluation_lines += 1
            when = "" if self.evaluated_at == step else f" at step {self.evaluated_at}"
            held_out = f"held out{when}: {'  '.join(self.waiting)}"
        taken = step - self.first_step
        left = (time.monotonic() - self.phase_began) / taken * (self.steps - step) if taken > 0 else 0.0
        remaining = f"   {words.duration(left)} left" if taken > 0 and step < self.steps else ""
        remaining += f", {self.in_all}" if remaining and self.in_all else ""
        said = "   ".join(part for part in ("  ".join(figures), held_out) if part)
        self.screen.say(f"  step {step:{len(str(self.steps))}}/{self.steps}   {said}{remaining}")
        self.waiting = []

    def _alarms(self, run: Run, phase: str, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            known = run.metric(phase, name)
            if known is None or known.healthy is None or (phase, name) in self.alarmed:
                continue
            low, high = known.healthy
            if not low <= value <= high:
                self.alarmed.add((phase, name))
                self.screen.say(
                    f"  worth a look: {name} is {words.number(value)}, usually {low:g} to {high:g} ({known.formula}). "
                    "Reported once per phase.",
                    "yellow",
                )

    def _close(self, run: Run) -> None:
        """Say that the phase so far is done, if its last row was not known to be the last, because the phase ended early."""
        if self.phase:
            self._phase_done(run, self.phase)

    def _phase_done(self, run: Run, phase: str) -> None:
        self.phase = ""
        self.screen.end()
        took = words.duration(time.monotonic() - self.phase_began)
        said = self.first_and_last(run.rows(), phase, training=True)
        self.screen.say(f"{phase} done in {took}" + (f"   {'   '.join(said)}" if said else ""))

    def first_and_last(self, rows: Sequence[Mapping[str, Any]], phase: str, training: bool = False) -> list[str]:
        """`perplexity 510 → 49.2`, …: a phase's evaluation figures, and optionally its loss, at start and end."""
        found: dict[str, list[float]] = {}
        for row in rows:
            if row["phase"] != phase:
                continue
            for name, value in evaluation_of(row):
                found.setdefault(name.removeprefix("eval/"), []).append(value)
            if training:
                name = "nll" if "nll" in row["metrics"] else "loss"
                if name in row["metrics"]:
                    found.setdefault(name, []).append(row["metrics"][name])
        return [f"{name} {words.number(seen[0])} → {words.number(seen[-1])}" for name, seen in found.items()]


def evaluation_of(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The evaluation figures of a row."""
    return [(name, value) for name, value in row["metrics"].items() if name.startswith("eval/")]


def answered(answer: Mapping[str, Any]) -> str:
    """`"…the end of a prompt" → "an answer"   reward 0.5 (length 12, task 1)   advantage -0.2`, on one line."""
    prompt, said = (" ".join(answer[key].split()) for key in ("prompt", "completion"))
    prompt = prompt if len(prompt) <= PROMPT else f"…{prompt[-PROMPT:]}"
    said = said if len(said) <= ANSWER else f"{said[:ANSWER]}…"
    parts = [f'"{prompt}" → "{said}"']
    if answer["reward"] is not None:
        named = {key.removeprefix("reward/"): value for key, value in answer.items() if key.startswith("reward/")}
        terms = ", ".join(f"{name} {words.number(value)}" for name, value in named.items())
        parts.append(f"reward {words.number(answer['reward'])}" + (f" ({terms})" if terms else ""))
    if answer["advantage"] is not None:
        parts.append(f"advantage {words.number(answer['advantage'])}")
    if answer["finish_reason"] == "length":
        parts.append("cut off at the length limit")
    return "   ".join(parts)


class Plain:
    """Lines without any escape code: a pipe, a file, a log of a cluster."""

    def say(self, text: str, style: str = "") -> None:
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), flush=True)

    def begin(self, phase: str, steps: int, done: int) -> None:
        pass

    def end(self) -> None:
        pass


class Terminal:
    """A bar that stays at the bottom while lines scroll by above it."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False, soft_wrap=True)
        self.live: Any = None

    def say(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self.console.print(Text(text, style=style))

    def begin(self, phase: str, steps: int, done: int) -> None:
        from rich.console import Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.text import Text

        self.end()
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
        )
        self.progress = Progress(*columns, TextColumn("left{task.fields[in_all]}"), console=self.console)
        self.task = self.progress.add_task(phase, total=steps, completed=done, in_all="")
        self.figures = Text("  …", style="dim", no_wrap=True, overflow="ellipsis")
        self.live = Live(Group(self.progress, self.figures), console=self.console, transient=True, refresh_per_second=5)
        self.live.start()

    def advance(self, step: int, figures: str, in_all: str, value: float | None = None) -> None:
        if self.live:
            self.progress.update(self.task, completed=step, in_all=f", {in_all}" if in_all else "")
            self.figures.plain = f"  {figures}" if figures else "  …"

    def end(self) -> None:
        """Remove the bar and restore the cursor."""
        if self.live:
            self.live.stop()
            self.live = None
