"""Several runs of one experiment: seeds, a matrix of other settings, and levers.

Each run is an ordinary run directory under one sweep directory, made by its own child process, so that a run which
fails does not stop the others. All combinations are planned and checked before the first run starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from hookline.config.experiment import Source, document_of
from hookline.config.objects import reference
from hookline.errors import CheckpointError, ExperimentError, HooklineError, Stopped
from hookline.storage.paths import expanded
from hookline.study.matrix import Member, axes_of, left_out, members_of
from hookline.study.workers import why, work

__all__ = ["sweep"]


FILE = "sweep.json"


class RunsFailed(ExperimentError):
    """Some runs of a sweep failed; the exit code is the first one's."""


def sweep(
    experiment: Source,
    overrides: Sequence[str] = (),
    *,
    seeds: str | int | Sequence[int] | None = None,
    jobs: int = 1,
    out: str | Path | None = None,
    plugins: Sequence[str | type] = (),
) -> list[Any]:
    """Run every combination of an experiment's `matrix`, its `levers` and of `seeds`, or resume the sweep in `out`.

    seeds: a count (5: seeds 1 to 5) or the seeds themselves; jobs: how many runs at once; results do not depend on it.
    Returns the runs. Raises a HooklineError before anything starts if a combination cannot work, and at the end, after
    all others have finished, if some runs failed.
    """
    from hookline.loop.api import fresh_directory
    from hookline.runs.run import Run
    from hookline.study.progress import Progress
    from hookline.world.signals import stop_signals

    if jobs < 1:
        raise ExperimentError(f"--jobs {jobs} would run nothing", "set it to 1 or more")
    experiment, given = document_of(experiment), [reference(plugin) for plugin in plugins]
    members = members_of(experiment, overrides, seeds, given)
    name = members[0].plan.experiment.name
    directory = expanded(Path(out)) if out else fresh_directory(f"{name}-sweep")
    with _opened(directory) as lock:
        waiting, notices = _to_do(members, directory)
        about = _note(directory, members, given)
        done = len(members) - len(waiting)
        progress = Progress(directory, [(m.name, m.plan.experiment) for m in members], done)
        axes = axes_of(experiment, overrides, seeds) or {}
        progress.begin([*left_out(experiment, axes), *notices, *_thread_notice(members, jobs)])
        requests = [
            {
                "name": member.name,
                "experiment": member.plan.experiment.resolved(),
                "plugins": given,
                "data": sorted({name for _, name in member.plan.data()}),
                "out": str(directory / member.name),
                "log": str(directory / "logs" / f"{member.name}.txt"),
                "group": f"{directory.resolve().name}-{about['id']}",
            }
            for member in waiting
        ]
        codes: dict[str, int] = {}
        try:
            with stop_signals() as stopping:
                phases = {member.name: {phase.spec.name: phase.spec.steps for phase in member.plan.phases} for member in waiting}
                work(
                    requests,
                    min(jobs, len(requests)),
                    lock,
                    stopping,
                    progress,
                    codes,
                    lambda name: Run.ended(directory / name, phases[name]),
                )
        finally:
            progress.end()
    whole = done + sum(code == 0 for code in codes.values())
    hint = f"run the same command with --out {directory} to continue"
    if stopping.code:
        raise Stopped(f"stopped, saved; {whole} of {len(members)} runs are finished", hint, stopping.code)
    failed = {name: code for name, code in codes.items() if code}
    if failed:
        said = [f"{name}: {why(directory / 'logs' / f'{name}.txt', code)}" for name, code in failed.items()]
        what = f"{len(failed)} of {len(members)} runs failed, {whole} are finished; logs are in {directory / 'logs'}; {hint}"
        error = RunsFailed(what, "", said)
        code = next(iter(failed.values()))
        error.exit_code = code if 0 < code < 256 else 1
        raise error
    return [Run.read(directory / member.name) for member in members]


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    """Open a new or existing sweep directory, under a lock that the runs' processes share while they live."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / "lock").open("a+")
    except OSError as err:
        why = "it is a file" if isinstance(err, FileExistsError) else err.strerror
        raise CheckpointError(f"{directory} cannot be written: {why}", "choose another directory with --out") from None
    with file:
        if (directory / "run.json").exists():
            raise CheckpointError(
                f"{directory} is the directory of a run, not of a sweep", "choose another directory with --out"
            )
        strangers = sorted(p.name for p in directory.iterdir() if p.name != "lock")
        if strangers and not (directory / FILE).exists():
            raise CheckpointError(
                f"{directory} is not empty and is not a sweep directory (it contains {strangers[0]}, …)",
                "choose another directory with --out",
            )
        _take(file, directory)
        (directory / "logs").mkdir(exist_ok=True)
        yield file.fileno()


def _take(file: IO[str], directory: Path, patience: float = 60.0) -> None:
    """Take the lock; wait for runs that outlived a killed sweep, since they are still saving."""
    import fcntl  # without this module, everything except a sweep works

    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            if _alive(holder) or time.monotonic() > until:
                raise CheckpointError(
                    f"{directory} is in use by process {holder}",
                    "wait for that process, stop it, or choose another --out",
                ) from None
            time.sleep(0.1)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _to_do(members: Sequence[Member], directory: Path) -> tuple[list[Member], list[str]]:
    """The unfinished members, and notices of existing runs. Raises one error for all runs that cannot be resumed."""
    from hookline.loop.api import complete, open_run

    waiting: list[Member] = []
    notices: list[str] = []
    errors: list[HooklineError] = []
    for member in members:
        if not (directory / member.name / "run.json").exists():
            waiting.append(member)
            continue
        try:
            run = open_run(directory / member.name, member.plan, say=lambda text: None)
            try:
                if not complete(run, member.plan):
                    waiting.append(member)
                notices += [f"{member.name}: {notice}" for notice in run.notices]
            finally:
                run.close()
        except HooklineError as err:
            errors.append(err)
    if errors:
        error = CheckpointError(
            str(errors[0]) if len(errors) == 1 else f"{len(errors)} runs in {directory} cannot be resumed"
        )
        if len(errors) > 1:
            error.message += "".join(f"\n  {err}" for err in errors[:20])
        error.exit_code = errors[0].exit_code
        raise error
    return waiting, notices


def _note(directory: Path, members: Sequence[Member], plugins: Sequence[str]) -> dict[str, Any]:
    """Write sweep.json, the list of runs. A sweep that gets more seeds or configurations keeps its earlier runs."""
    path = directory / FILE
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else "{}"
        about: dict[str, Any] = {"id": uuid.uuid4().hex[:8], **json.loads(text)}
        known = {run["name"]: run for run in about.get("runs", [])}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as err:
        raise CheckpointError(f"{path} cannot be read: {err}", "restore or remove it") from None
    for member in members:
        known[member.name] = {
            "name": member.name,
            "configuration": member.configuration,
            "overrides": list(member.overrides),
            **({"lever": member.lever} if member.lever else {}),
        }
    about |= {"format": 1, "experiment": members[0].plan.experiment.name, "plugins": list(plugins)}
    about["runs"] = list(known.values())
    aside = directory / f".{FILE}.aside"
    aside.write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    aside.replace(path)
    return about


def _thread_notice(members: Sequence[Member], jobs: int) -> list[str]:
    import torch

    each = max(member.plan.experiment.threads or torch.get_num_threads() for member in members)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if min(jobs, len(members)) * each <= cores or jobs == 1:
        return []
    fewer = max(1, cores // jobs)
    return [
        f"{jobs} runs at once use {each} threads each on {cores} cores; threads={fewer} is faster but rounds differently"
    ]
