"""The verbs. Each imports what it needs when it is called, so that `--help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hookline.contract.kinds import taught

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="RLHF experiments as four hooks: rollout, reward, advantage, update. Everything else is a plugin.",
    epilog="Exit codes: 0 done, 1 a bug of ours, 2 usage or experiment file, 3 data, 4 checkpoint or run directory, "
    "5 plugin, 6 numbers, 7 a service, 130 interrupted, 143 stopped by SIGTERM and saved.",
)
plugins_app = typer.Typer(no_args_is_help=True, help="What is installed, by whom, and whether it works.")
app.add_typer(plugins_app, name="plugins")
bench_app = typer.Typer(no_args_is_help=True, help="How fast the kernels are on this machine.")
app.add_typer(bench_app, name="bench")

Plugins = Annotated[
    list[str] | None, typer.Option("-p", "--plugin", help="Make a loose file or an installed plugin available.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Experiment = Annotated[str, typer.Argument(help="A YAML file.", metavar="EXPERIMENT")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value, e.g. seed=2 phases.rl.update.lr=1e-5", metavar="[KEY=VALUE]…")
]


def version(wanted: bool) -> None:
    if wanted:
        from hookline import __version__

        typer.echo(f"hookline {__version__}")
        raise typer.Exit


@app.callback()
def root(
    show: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Which Hookline this is.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    experiment: Experiment,
    overrides: Overrides = None,
    out: Annotated[str | None, typer.Option("--out", help="The run's directory; one that exists is resumed.")] = None,
    plugin: Plugins = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Several runs: a count (5: seeds 1 to 5) or the seeds, 3,7,11.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="How many of several runs at once.")] = 1,
) -> None:
    """Run an experiment; with --out of an earlier run, go on where it stopped, bit for bit.

    With --seeds, or a `matrix:` in the file, it is several runs, each in a directory under --out.
    """
    from hookline.loop import api
    from hookline.study import matrix, sweep

    if matrix.axes_of(experiment, overrides or [], seeds) is None:
        if jobs > 1:
            from hookline.errors import ExperimentError

            raise ExperimentError(f"--jobs {jobs} is for several runs, and this is one", "add --seeds, or a matrix")
        api.run(experiment, overrides or [], out=out, plugins=plugin or [])
    else:
        sweep.sweep(experiment, overrides or [], seeds=seeds, jobs=jobs, out=out, plugins=plugin or [])


@app.command()
def explain(experiment: Experiment, overrides: Overrides = None, plugin: Plugins = None, json: AsJson = False) -> None:
    """Who answers each hook, who wraps it, from which file; fails whenever `run` would refuse."""
    from hookline.cli.show import explain_json, explain_text
    from hookline.loop.api import plan
    from hookline.study.matrix import axes_of, members_of

    given = overrides or []
    members = [] if axes_of(experiment, given) is None else members_of(experiment, given, plugins=plugin or [])
    planned = members[0].plan if members else plan(experiment, given, plugin or [])
    names = [member.name for member in members]
    if json:
        typer.echo(_json(explain_json(planned) | ({"matrix": names} if names else {})))
    else:
        more = f"\nmatrix     {len(names)} runs, the first as above: {'  '.join(names)}" if names else ""
        typer.echo(explain_text(planned) + more)


@app.command()
def doctor(json: AsJson = False) -> None:
    """What is here, what was built with what, and the one command that mends what is not."""
    from hookline.cli.doctor import examine, show

    found = examine()
    typer.echo(_json(found) if json else show(found))
    if any(item["state"] == "broken" for item in found):
        raise typer.Exit(7)


@app.command("eval")
def evaluate(
    target: Annotated[str, typer.Argument(help="A run directory.", metavar="RUN")],
    phase: Annotated[str | None, typer.Option("--phase", help="Whose model; default: the last finished phase.")] = None,
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, help="How many rows; default: as in the experiment.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Judge a finished phase's model again on the experiment's evaluations, with bootstrap intervals."""
    from hookline.cli.evaluate import evaluate_run, show_table

    found = evaluate_run(Path(target), phase, rows)
    typer.echo(_json(found) if json else show_table(found))


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Run directories, or sweeps; each perhaps LABEL=DIR.", metavar="RUN…")
    ],
    metric: Annotated[str | None, typer.Option("--metric", help="E.g. eval/keyword-coverage.")] = None,
    phase: Annotated[str | None, typer.Option("--phase", help="Default: the last phase that has the figure.")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Write compare.json, .md, .html and figures here.")] = None,
    json: AsJson = False,
) -> None:
    """Does A beat B? Configurations over seeds, their paired differences with intervals, and curves."""
    from hookline.cli import compare as shown
    from hookline.study.compare import compare as compare_runs

    found = compare_runs(runs, metric=metric, phase=phase)
    files = shown.write(found, Path(out)) if out else []
    typer.echo(_json(found) if json else shown.show(found))
    if files and not json:
        typer.echo(f"\nwritten: {', '.join(map(str, files))}")


@app.command()
def export(
    target: Annotated[str, typer.Argument(help="A run directory.", metavar="RUN")],
    folder: Annotated[str, typer.Argument(help="A new folder.", metavar="DIR")],
    phase: Annotated[str | None, typer.Option("--phase", help="Whose model; default: the last finished phase.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The weights that `save.best` kept.")] = False,
) -> None:
    """Write a plain transformers folder: model and tokenizer, loadable without Hookline."""
    from hookline.cli.evaluate import export_run

    typer.echo(export_run(Path(target), Path(folder), phase, best))


@plugins_app.command("list")
def plugins_list(plugin: Plugins = None, json: AsJson = False) -> None:
    """Every component on offer: kind, name, distribution, version, state. Imports none of them."""
    from hookline.cli.show import list_json, list_text

    found = list_json(plugin or [])
    typer.echo(_json(found) if json else list_text(found))


@plugins_app.command("show")
def plugins_show(name: Annotated[str, typer.Argument()], plugin: Plugins = None, json: AsJson = False) -> None:
    """One component: what it does, its options, what it needs and gives, and what is wrong with it."""
    from hookline.cli.show import show_json, show_text

    found = show_json(name, plugin or [])
    typer.echo(_json(found) if json else show_text(found))
    if all(item["problem"] for item in found):
        raise typer.Exit(5)


@plugins_app.command("new")
def plugins_new(
    name: Annotated[str, typer.Argument(help="What experiments will call it, e.g. my-method.")],
    kind: Annotated[
        str,
        typer.Option("--kind", help=", ".join(kind.asked for kind in taught()) + "."),
    ] = "algorithm",
    parent: Annotated[str, typer.Option("--dir", help="Where the folder hookline-NAME is made.")] = ".",
) -> None:
    """Write a distribution with a small component that works, its tests, and an experiment to try it in."""
    from hookline.cli.kit import create

    typer.echo(create(name, kind, Path(parent)))


@plugins_app.command("check")
def plugins_check(
    name: Annotated[str, typer.Argument(help="A component, or a distribution for all of its components.")],
    options: Annotated[
        list[str] | None, typer.Argument(help="Options to check it with, e.g. gamma=0.9", metavar="[OPTION=VALUE]…")
    ] = None,
    plugin: Plugins = None,
    json: AsJson = False,
) -> None:
    """Whether a component keeps the contract, law by law, on a real phase with a tiny model; some seconds, CPU only."""
    from hookline.cli.kit import check

    reports = check(name, options or [], plugin or [])
    typer.echo(_json([report.as_json() for report in reports]) if json else "\n\n".join(map(str, reports)))
    if any(not report.passed for report in reports):
        raise typer.Exit(5)


@bench_app.command("kernels")
def bench_kernels(
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small shapes, a few seconds: that it works, not how fast.")
    ] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile of the eager form as well.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write kernels.json and roofline.png here.")] = None,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", help="A stored measurement; exit code 6 if ours lost over 5 % against eager."),
    ] = None,
    save: Annotated[Path | None, typer.Option("--save", help="Store this measurement.")] = None,
) -> None:
    """Every kernel beside torch eager, the pure reference and installed peers: right first, then how fast."""
    from hookline.cli import bench

    bench.bench_kernels(device, quick, compiled, out, baseline, save)


@bench_app.command("update")
def bench_update(
    quick: Annotated[bool, typer.Option("--quick", help="Small vocabularies: that it works, not how fast.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write update.json here.")] = None,
) -> None:
    """The same training step with the fused path and with logits in memory: time, and peak memory of a process each."""
    from hookline.cli import bench

    bench.bench_update(quick, out)


def _json(value: Any) -> str:
    import json as plain

    return plain.dumps(value, indent=1, ensure_ascii=False, default=str)
