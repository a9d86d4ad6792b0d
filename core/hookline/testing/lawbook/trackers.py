"""Laws for trackers: a tracker must not disturb the run that it watches."""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from hookline.config import experiment
from hookline.loop.api import open_run
from hookline.loop.loop import run_experiment
from hookline.loop.session import Session
from hookline.plan.plan import Plan
from hookline.plan.planner import make_plan
from hookline.runs.run import Run
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law
from hookline.testing.surroundings import stand_in_offers

UGLY = '<b>"quoted" & \\frac</b>\n\tünïcödé 🙂 \x07'


@contextlib.contextmanager
def watched(subject: Subject, tracked: bool = True) -> Iterator[tuple[Run, Plan, Path]]:
    """A real run with the tracker, in a working directory where it must write nothing: (run, plan, directory)."""
    subject._made += 1
    home = subject.folder / f"watched-{subject._made}"
    scratch = home / "elsewhere"
    scratch.mkdir(parents=True)
    parsed, document = experiment.load(described(subject, tracked))
    loose = [*stand_in_offers(), *([subject.offer] if subject.offer.path else [])]
    plan = make_plan(parsed, document, loose)
    kept = os.environ.get("WANDB_MODE")
    os.environ["WANDB_MODE"] = "offline"  # a check sends nothing over the network
    run = open_run(home / "run", plan)
    try:
        with contextlib.chdir(scratch), contextlib.redirect_stdout(io.StringIO()):
            yield run, plan, scratch
    finally:
        run.close()
        os.environ.pop("WANDB_MODE") if kept is None else os.environ.update(WANDB_MODE=kept)


def described(subject: Subject, tracked: bool) -> dict[str, Any]:
    """Four steps, with a save and an evaluation every second step."""
    own = {"use": subject.offer.name if subject.offer.path else f"{subject.offer.distribution}:{subject.offer.name}"}
    sampled = {"use": "testing-sampled", "prompts": subject.rows, "rows": 2}
    phase = {
        "name": "watched",
        "steps": 4,
        "rollout": sampled,
        "reward": "testing-worth",
        "update": {"use": "testing-follow"},
        "evaluate": [{"every": 2, "rows": 4, "rollout": sampled, "reward": ["testing-worth"]}],
        "save": {"every": 2},
    }
    return {
        "name": "watched",
        "seed": 3,
        "tokenizer": {"train": "words", "on": subject.rows, "vocabulary": 100_000},
        "model": {"build": "testing-model"},
        "phases": [phase],
        "trackers": [{**own, **subject.options}] if tracked else [],
    }


def finish(run: Run, plan: Plan, stop_after: int = 0) -> None:
    """Finish the run, or interrupt it after this many rows were committed."""
    commit = Session.commit_row

    def committed(session: Session, *row: Any) -> None:
        commit(session, *row)
        if stop_after and len(run.rows()) == stop_after:
            raise KeyboardInterrupt

    try:
        with mock.patch.object(Session, "commit_row", committed):
            run_experiment(plan, run)
    except KeyboardInterrupt:
        if not stop_after:
            raise


def failed(run: Run) -> str:
    return next((text for text in run.notices if "failed and is no longer called" in text), "")


@law("tracker")
def survives(subject: Subject) -> str | None:
    """The tracker does not fail in a run, with figures that are not finite, names with slashes, and texts of every kind."""
    with watched(subject) as (run, plan, _):
        finish(run, plan)
        if failed(run):
            raise Broken(failed(run))
    with watched(subject) as (run, plan, _), asyncio.Runner() as answers:
        session = Session(plan, run, answers)
        session.trackers.tell("run_started")
        session.trackers.tell("phase_started", phase="watched", steps=2, done=0)
        session.commit_samples("watched", 0, "heldout", [])
        session.commit_row("watched", 0, {}, {})
        sample = {"sample": 1, "group": 1, "prompt": UGLY, "response": "", "tokens": 0, "terms": {}}
        session.commit_samples(
            "watched", 1, "a b/c", [sample, {**sample, "response": UGLY, "terms": {"x/y": math.nan}}]
        )
        answer = {"sample": 1, "group": 1, "prompt": UGLY, "completion": UGLY, "tokens": 0, "finish_reason": "recorded"}
        answer |= {"source": UGLY, "reward": None, "reward/x/y": math.nan, "advantage": None}
        session.commit_completions("watched", 1, [answer, {**answer, "reward": -math.inf, "completion": ""}])
        session.commit_row(
            "watched", 1, {"loss": math.nan, "reward": math.inf, "eval/a b/c": -math.inf}, {"seconds/x": 0.0}
        )
        session.trackers.tell("run_finished", status="failed")
        session.close()
        if failed(run):
            raise Broken(failed(run))
    return None


@law("tracker")
def own_folder(subject: Subject) -> str | None:
    """The tracker writes only into the run's directory."""
    with watched(subject) as (run, plan, scratch), written() as paths:
        finish(run, plan)
        left = sorted(path.name for path in scratch.iterdir())
        if left:
            raise Broken(f"the tracker left {', '.join(left[:3])} in the working directory; write below run.directory")
        here = run.directory.resolve()
        outside = sorted({str(path) for path in paths if not path.is_relative_to(here) and not harmless(path)})
        if outside:
            raise Broken(f"the tracker wrote {', '.join(outside[:3])}; write below run.directory")
    return None


def harmless(path: Path) -> bool:
    """Whether a path is a cache or a temporary file, which any program may write."""
    home = Path.home()
    places = [Path(tempfile.gettempdir()), Path("/dev"), Path("/proc"), home / ".cache", home / ".config"]
    return "__pycache__" in path.parts or any(path.is_relative_to(place.resolve()) for place in places)


_listeners: list[set[Path]] = []
_listening = False


@contextlib.contextmanager
def written() -> Iterator[set[Path]]:
    """The files that this process opens for writing in the `with` block."""
    global _listening

    def hear(event: str, about: tuple[Any, ...]) -> None:
        if event == "open" and _listeners and isinstance(about[0], str):
            mode, flags = str(about[1] or ""), int(about[2] or 0)
            if set(mode) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR):
                for paths in _listeners:
                    paths.add(Path(os.path.realpath(about[0])))

    if not _listening:  # an audit hook cannot be removed, so there is only one, and it listens only when asked to
        sys.addaudithook(hear)
        _listening = True
    found: set[Path] = set()
    _listeners.append(found)
    try:
        yield found
    finally:
        _listeners.remove(found)


@law("tracker")
def every_row_once(subject: Subject) -> str | None:
    """After an interruption and a resume, the tracker's files have as many lines as without: each row once."""
    with watched(subject, tracked=False) as (run, plan, _):
        finish(run, plan)
        plain = set(lines(run))
    with watched(subject) as (run, plan, _):
        finish(run, plan)
        straight = {name: count for name, count in lines(run).items() if count and name not in plain}
    if not straight:
        raise NotApplicable("the tracker leaves no text in the run's directory")
    with watched(subject) as (run, plan, _):
        finish(run, plan, stop_after=4)  # the start's row and three steps; the newest save was after two
        run.close()
        again = open_run(run.directory, plan)
        try:
            finish(again, plan)
            resumed = {name: count for name, count in lines(again).items() if name not in plain}
        finally:
            again.close()
    for name, count in straight.items():
        if resumed.get(name) != count:
            raise Broken(
                f"{name} has {resumed.get(name, 0)} lines after a resume, {count} without; rows are repeated: see run.rows()"
            )
    return None


def lines(run: Run) -> dict[str, int]:
    """Lines of the text files in a run's directory, by name; numbers and hashes in a name, such as a date, are ignored."""
    found: dict[str, int] = {}
    for path in run.directory.rglob("*"):
        if path.is_file() and path.suffix != ".log":  # a library's own log does not contain rows
            name = re.sub(r"[0-9a-f]{6,}|\d+", "*", path.relative_to(run.directory).as_posix())
            with contextlib.suppress(UnicodeDecodeError):
                found[name] = found.get(name, 0) + path.read_text(encoding="utf-8").count("\n")
    return found
