"""Running experiments from Python, as in a notebook: `run = hookline.run("experiment.yaml")`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hookline import kernels
from hookline._version import __version__
from hookline.config import experiment as experiments
from hookline.config.experiment import Source
from hookline.config.objects import reference
from hookline.config.yaml import Document
from hookline.contract.kinds import KINDS
from hookline.errors import CheckpointError, ExperimentError, HooklineError, PluginError, nearest
from hookline.loop.loop import PhaseLoop, run_experiment
from hookline.loop.session import Session
from hookline.plan.plan import Plan, PlannedPhase
from hookline.plan.planner import make_plan, other_problems
from hookline.registry import offers
from hookline.registry.copies import FUNCTIONS, PLUGINS
from hookline.runs.run import Run
from hookline.storage.paths import expanded, look_in
from hookline.world.exits import guarded
from hookline.world.notebook import beside_event_loops
from hookline.world.world import TIMEOUT, World, together

__all__ = [
    "begin",
    "complete",
    "explain",
    "finished_phase",
    "fresh_directory",
    "open_finished",
    "open_phase",
    "open_run",
    "phase_named",
    "plan",
    "plan_of",
    "run",
]


def plan(
    experiment: Source,
    overrides: Sequence[str] = (),
    plugins: Sequence[str | type] = (),
    out: str | Path | None = None,
) -> Plan:
    """Read an experiment and resolve which component answers which hook, without loading weights.

    out: the directory of a run to resume; what that run settled at its start, such as `autocast: auto`, is kept.
    Raises ExperimentError, PluginError.
    """
    if out is not None:
        look_in(expanded(Path(out)))
    given = [reference(plugin) for plugin in plugins]
    parsed, document = experiments.load(experiment, overrides, lambda read: other_problems(read, given))
    if out is None or not Run.is_one(expanded(Path(out))):
        return make_plan(parsed, document, given)
    begun = Run.read(out)
    kept_from = None if begun.holds_nothing() else begun.experiment  # a failed start settles nothing
    return make_plan(parsed, document, given, kept_from, kept=str(begun.directory / FUNCTIONS))


def explain(experiment: Source, overrides: Sequence[str] = (), *, plugins: Sequence[str | type] = ()) -> Plan:
    """What `hookline explain` shows: which component answers which hook, checked as at the start of a run.

    experiment, overrides, plugins: as for `run`. No weights are loaded, and of data only the first rows are read. Raises
    what `run` would raise about the experiment: ExperimentError, DataError, PluginError.
    """
    return plan(experiment, overrides, plugins)


@beside_event_loops
def run(
    experiment: Source,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    plugins: Sequence[str | type] = (),
    group: str | None = None,
    timeout: float = TIMEOUT,
) -> Run:
    """Run an experiment, or resume it when `out` already holds its run. Raises a HooklineError with cause and hint.

    experiment: a YAML file, or its contents as a mapping, which may hold rows, functions and classes (docs/python.md);
    overrides: `key=value`; plugins: loose files, installed names or classes; group: a name shared by runs that belong
    together, for trackers that show it.

    Where a launcher such as torchrun has started several processes, each of them calls this, and together they make one
    run; timeout: the seconds that they wait for one another.
    """
    with guarded(), together(timeout) as link:
        return _run(experiment, overrides, out, plugins, group, World(link=link))


def _run(
    experiment: Source,
    overrides: Sequence[str],
    out: str | Path | None,
    plugins: Sequence[str | type],
    group: str | None,
    world: World,
) -> Run:
    try:
        planned = plan(experiment, overrides, plugins, out)
    except (PluginError, ExperimentError) as err:  # several missing plugins are one ExperimentError
        if err.exit_code == PluginError.exit_code:
            err.hint = _gone_since(out) or err.hint
        raise
    for several in ("matrix", "levers"):
        if getattr(planned.experiment, several):
            raise ExperimentError(
                f"the experiment has `{several}`, so it describes several runs",
                f"use hookline.sweep(…), or override {several}={{}} to make one run",
            )
    directory = expanded(Path(out)) if out else world.main(lambda: fresh_directory(planned.experiment.name))
    opened = open_run(directory, planned, world=world)
    try:
        if group:
            opened.note(group=group)
        begin(opened, planned)
        finished = world.main(lambda: complete(opened, planned), "the run's phases")
        if finished:
            _say(opened, finished)
        # a complete run takes no step; its trackers still write what a kill or a missing library prevented
        run_experiment(planned, opened)
    except HooklineError as err:
        if out is None:
            err.hint = f"{err.hint}; this run is --out {directory}"
        raise
    finally:
        opened.close()
    return opened


def open_run(
    directory: Path, planned: Plan, say: Callable[[str], None] | None = None, world: World | None = None
) -> Run:
    """Start the run of a plan in a directory, or resume the run that is there; the caller closes it with `close`.

    say: receives the run's notices; by default they go to standard error. world: the processes that open it together.
    """
    more: dict[str, Any] = {"world": world, **({"say": say} if say else {})}
    return Run.open(directory, planned.experiment, loose=planned.loose, used=planned.offers, **more)


@contextmanager
def open_phase(run: Run, planned: Plan, phase: str | None = None, *, finished: bool = False) -> Iterator[PhaseLoop]:
    """Open a phase of a run, set up and restored, to step or inspect it; leaving the block closes its components.

    phase: by default the last one. finished: open the phase as it ended, to evaluate it; the run then needs no lock.
    Earlier phases must have ended. Raises ExperimentError for an unknown phase.
    """
    chosen = phase_named(planned, phase)
    with asyncio.Runner() as answers:
        session = Session(planned, run, answers)
        try:
            with PhaseLoop(session, chosen, finished) as loop:
                yield loop
        finally:
            session.close()


def phase_named(planned: Plan, name: str | None) -> PlannedPhase:
    """The phase with that name, or the last one for None. Raises ExperimentError if there is no such phase."""
    names = [phase.spec.name for phase in planned.phases]
    if name is not None and name not in names:
        raise ExperimentError(f"there is no phase '{name}'{nearest(name, names)}", f"phases: {', '.join(names)}")
    return planned.phases[-1 if name is None else names.index(name)]


@contextmanager
def open_finished(run: Run, phase: str | None = None) -> Iterator[PhaseLoop]:
    """Open a finished phase of a run for evaluation, with the weights that the phase ended with.

    phase: by default the last finished one. Raises ExperimentError for an unknown phase, CheckpointError for a phase
    that has not finished or is damaged.
    """
    planned = plan_of(run)
    with open_phase(run, planned, finished_phase(run, planned, phase).spec.name, finished=True) as loop:
        yield loop


def finished_phase(run: Run, planned: Plan, name: str | None = None) -> PlannedPhase:
    """The finished phase with that name, or the last finished one; its folder is verified."""
    phase_named(planned, name)
    finished = [phase for phase in planned.phases if run.phase_folder(phase.spec.name).exists()]
    wanted = [phase for phase in finished if name in (None, phase.spec.name)]
    if not wanted:
        which = f"phase '{name}'" if name else "any phase"
        raise CheckpointError(f"{run.directory} has not finished {which}", "let `hookline run` finish it first")
    run.finished(wanted[-1].spec.name)
    return wanted[-1]


def complete(run: Run, planned: Plan) -> str:
    """One sentence about a run in which every phase has ended and is verified; empty for an unfinished run."""
    phases = [phase.spec for phase in planned.phases]
    if not run.resumed or any(run.finished(phase.name, phase.steps) is None for phase in phases):
        return ""
    rows = run.directory / "metrics.jsonl"
    steps = sum(int((run.finished(phase.name) or {}).get("steps", phase.steps)) for phase in phases)
    return (
        f"already complete: {steps} steps in {len(phases)} phase{'s' if len(phases) > 1 else ''}; "
        f"the model is in {run.phase_folder(phases[-1].name)}, rows in {rows}"
    )


def plan_of(run: Run, kinds: Sequence[str] = tuple(KINDS)) -> Plan:
    """The plan of a run that is only read, from the run's own copy of the experiment and of the loose plugins.

    kinds: the kinds of components that are needed; others may no longer be installed. Data may be gone too.
    """
    look_in(run.directory)
    values = run.experiment
    values["plugins"] = [str(path) for path in sorted((run.directory / PLUGINS).glob("*.py"))]
    try:
        parsed, document = experiments.load(Document(str(run.directory / "experiment.json"), values))
        planned = make_plan(parsed, document, ended=kinds, kept=str(run.directory / FUNCTIONS))
    except (PluginError, ExperimentError) as err:
        if err.exit_code == PluginError.exit_code:
            err.hint = _gone_since(run.directory) or err.hint
        raise
    run.catalogue = planned.catalogue
    return planned


def _gone_since(out: str | Path | None) -> str:
    """How to install the plugins that a run began with and that are missing now; empty if none is missing."""
    if out is None or not Run.is_one(expanded(Path(out))):
        return ""
    here = {offer.distribution for offer in offers.offers()}
    then = [p for p in Run.read(out).about["plugins"] if not p["distribution"].endswith(".py")]
    gone = dict.fromkeys(f"{p['distribution']}=={p['version']}" for p in then if p["distribution"] not in here)
    return f"pip install {' '.join(gone)}, as when this run began" if gone else ""


def begin(opened: Run, planned: Plan) -> None:
    """Print the first line of a run: its kernels, plugins, seed and directory."""
    third = sorted({f"{o.name} ({o.distribution} {o.version})" for o in planned.offers if not o.built_in})
    what = "goes on in" if opened.resumed else "→"
    _say(
        opened,
        f"hookline {__version__}   kernels: {kernels.build_info()['kernels']}   "
        f"plugins: {', '.join(third) or 'built-in'}   seed {planned.experiment.seed}   "
        f"{f'{opened.world.size} processes   ' if opened.world.size > 1 else ''}{what} {opened.directory}",
    )
    for text in planned.notes:
        _say(opened, f"note: {text}")


def _say(run: Run, line: str) -> None:
    """Print a line; a run goes on where standard output is full or closed."""
    if not run.world.leads:
        return
    try:
        print(line, flush=True)
    except (OSError, ValueError) as err:
        told = f"standard output cannot be written: {getattr(err, 'strerror', None) or err}"
        if told not in run.notices:
            run.notice(told)


def fresh_directory(name: str, root: Path | None = None) -> Path:
    """The first of runs/NAME-0001, runs/NAME-0002, … that does not exist."""
    root = root or Path("runs")
    for number in range(1, 10_000):
        directory = root / f"{name}-{number:04d}"
        if not directory.exists():
            return directory
    raise CheckpointError(f"{root} holds 9999 runs of '{name}'", "choose a directory with --out")
