"""Running experiments from Python, as in a notebook: `run = hookline.run("experiment.yaml")`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hookline.config import experiment as experiments
from hookline.config.experiment import Source
from hookline.errors import CheckpointError, ExperimentError, HooklineError, PluginError
from hookline.plan.plan import Plan
from hookline.plan.planner import make_plan, other_problems
from hookline.registry import offers
from hookline.runs.run import Run

__all__ = ["plan", "plan_of", "run"]


def plan(experiment: Source, overrides: Sequence[str] = (), plugins: Sequence[str] = ()) -> Plan:
    """Read an experiment and resolve who answers what, without loading a weight. Raises ExperimentError, PluginError."""
    parsed, document = experiments.load(experiment, overrides, lambda read: other_problems(read, plugins))
    return make_plan(parsed, document, plugins)


def run(
    experiment: Source,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    plugins: Sequence[str] = (),
    group: str | None = None,
) -> Run:
    """Run an experiment, or go on with it when `out` holds it already. Raises a HooklineError with cause and hint.

    experiment: a YAML file or the same as a mapping; overrides: `key=value`; plugins: loose files or installed names;
    group: a word that runs which belong together share, for trackers that show it.
    """
    try:
        planned = plan(experiment, overrides, plugins)
    except (PluginError, ExperimentError) as err:  # several missing plugins are one ExperimentError
        if err.exit_code == PluginError.exit_code:
            err.hint = _gone_since(out) or err.hint
        raise
    if planned.experiment.matrix:
        raise ExperimentError(
            "the experiment holds a `matrix`, so it is several runs", "hookline.sweep(…), or override matrix={} for one"
        )
    directory = Path(out) if out else fresh_directory(planned.experiment.name)
    opened = Run.open(directory, planned)
    try:
        if group:
            opened.join(group)
        begin(opened, planned)
        finished = opened.complete()
        if finished:
            print(finished, flush=True)
        from hookline.loop.loop import run_experiment

        # a complete run takes no step; its trackers still write what a kill, or a missing library, kept them from
        run_experiment(planned, opened)
    except HooklineError as err:
        if out is None:
            err.hint = f"{err.hint}; this run is --out {directory}"
        raise
    finally:
        opened.close()
    return opened


def plan_of(run: Run) -> Plan:
    """What a run that is only looked at was made of, from its own copy of the experiment and the loose plugins."""
    values = run.experiment
    values["plugins"] = [str(path) for path in sorted((run.directory / "plugins").glob("*.py"))]
    parsed, document = experiments.load(values)
    return make_plan(parsed, document)


def _gone_since(out: str | Path | None) -> str:
    """How to get back what a run was begun with and is not installed any more; nothing when all is there."""
    if out is None or not (Path(out) / "run.json").is_file():
        return ""
    here = {offer.distribution for offer in offers.offers()}
    then = [p for p in Run.read(out).about["plugins"] if not p["distribution"].endswith(".py")]
    gone = dict.fromkeys(f"{p['distribution']}=={p['version']}" for p in then if p["distribution"] not in here)
    return f"pip install {' '.join(gone)}, as when this run began" if gone else ""


def begin(opened: Run, planned: Plan) -> None:
    """The honest first line: which kernels, which plugins, which seed, where."""
    from hookline import kernels
    from hookline._version import __version__

    third = sorted({f"{o.name} ({o.distribution} {o.version})" for o in planned.offers if not o.built_in})
    what = "goes on in" if opened.resumed else "→"
    print(
        f"hookline {__version__}   kernels: {kernels.build_info()['kernels']}   "
        f"plugins: {', '.join(third) or 'built-in'}   seed {planned.experiment.seed}   {what} {opened.directory}",
        flush=True,
    )
    for text in (*planned.notes, *opened.notices):
        print(f"note: {text}", flush=True)


def fresh_directory(name: str, root: Path | None = None) -> Path:
    """runs/NAME-0001 and so on: the first that does not exist."""
    root = root or Path("runs")
    for number in range(1, 10_000):
        directory = root / f"{name}-{number:04d}"
        if not directory.exists():
            return directory
    raise CheckpointError(f"{root} holds 9999 runs of '{name}'", "choose a directory with --out")
