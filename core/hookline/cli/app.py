"""The verbs. Each verb imports its modules when it is called, so that `--help` is fast."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hookline.cli.commands import listed, named, program_of
from hookline.cli.out import as_json
from hookline.contract.kinds import taught
from hookline.registry.offers import VERBS, Offer, loose_of
from hookline.storage.paths import expanded

__all__ = ["app"]


class Verbs(typer.core.TyperGroup):
    """The core's own verbs, then every command that plugins offer; a command is loaded when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *dict.fromkeys(name for name, _ in listed(_loose(ctx)))]

    def get_command(self, ctx: Any, name: str) -> Any:
        own = super().get_command(ctx, name)
        offer = None if own else named(name, _loose(ctx))
        if own is None and offer is None and (loose := _loose(ctx)):
            from hookline.errors import ExperimentError

            offered = ", ".join(f"{one.kind} '{one.name}'" for one in loose)
            raise ExperimentError(
                f"there is no command '{name}'; the files given with -p offer {offered}", "hookline --help"
            )
        if offer is None:
            return own
        help, program = program_of(offer)
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(name, help=help)(program)
        return typer.main.get_command(alone)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = formatter.width - 6 - max(map(len, self.list_commands(ctx)))
        rows = [(name, command.get_short_help_str(width)) for name, command in self.commands.items()]
        offered = list(listed(_loose(ctx)))
        with formatter.section("Commands"):
            formatter.write_dl([*rows, *((name, _cut(line, width)) for name, line in offered)])


def _loose(ctx: Any) -> tuple[Offer, ...]:
    """The offers of the files that `-p` names before the command."""
    return loose_of(ctx.params.get("plugin") or ())


def _cut(line: str, width: int) -> str:
    """A line of help, cut after a whole word; the problem of an offer is printed in full."""
    if len(line) <= width or line.startswith("cannot be used"):
        return line
    return f"{line[: width - 3].rpartition(' ')[0]}..."


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="RLHF experiments as four hooks: rollout, reward, advantage, update. Everything else is a plugin.",
    epilog="Exit codes: 0 done, 1 a bug of ours, 2 usage or experiment file, 3 data, 4 checkpoint or run directory, "
    "5 plugin, 6 numbers, 7 a service, 130 interrupted, 143 stopped by SIGTERM and saved.",
)
plugins_app = typer.Typer(no_args_is_help=True, help="List, show, create and check plugins.")
app.add_typer(plugins_app, name="plugins")

Plugins = Annotated[
    list[str] | None, typer.Option("-p", "--plugin", help="Make a loose file or an installed plugin available.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Experiment = Annotated[str, typer.Argument(help="A YAML file.", metavar="EXPERIMENT")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value, e.g. seed=2 phases.rl.update.lr=1e-5", metavar="[KEY=VALUE]…")
]


def version(wanted: bool) -> None:
    if wanted:
        from hookline._version import __version__

        typer.echo(f"hookline {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    plugin: Annotated[
        list[str] | None, typer.Option("-p", "--plugin", is_eager=True, help="Make a loose file's commands available.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version of Hookline.")
    ] = False,
) -> None:
    verb = ctx.invoked_subcommand
    if plugin and verb in VERBS:
        from hookline.errors import ExperimentError

        raise ExperimentError(
            f"-p before `{verb}` makes a plugin's commands available, but `{verb}` is one of Hookline's own",
            f"write -p after the command: hookline {verb} … -p {plugin[0]}",
        )


@app.command()
def run(
    experiment: Experiment,
    overrides: Overrides = None,
    out: Annotated[
        str | None, typer.Option("--out", help="The run's directory; a run that exists there is resumed.")
    ] = None,
    plugin: Plugins = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Make several runs: a count (5: seeds 1 to 5) or the seeds (3,7,11).")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="How many of several runs to run at once.")] = 1,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Make one run with several processes on this machine.")
    ] = 1,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Seconds that the processes of a run wait for one another.")
    ] = 1800.0,
) -> int:
    """Run an experiment; with --out of an earlier run, continue that run where it stopped, bit for bit.

    With --seeds, or a `matrix:` or `levers:` in the file, make several runs, each in a directory under --out. With --processes, or
    under torchrun, accelerate launch or srun, several processes make one run together.
    """
    from hookline.config.experiment import document_of
    from hookline.errors import ExperimentError
    from hookline.loop import api
    from hookline.study import matrix, sweep
    from hookline.world.launch import launch
    from hookline.world.place import Place

    document, size = document_of(experiment), Place.here().size
    if matrix.axes_of(document, overrides or [], seeds) is not None:
        if max(size, processes) > 1:
            raise ExperimentError(
                "several processes make one run together, but these are several runs",
                "leave out --processes and the launcher; --jobs sets how many of several runs run at once",
            )
        sweep.sweep(document, overrides or [], seeds=seeds, jobs=jobs, out=out, plugins=plugin or [])
        return 0
    if jobs > 1:
        raise ExperimentError(
            f"--jobs {jobs} is for several runs, but this is a single run", "add --seeds, a matrix or levers"
        )
    if processes not in (1, size) and size > 1:
        raise ExperimentError(
            f"--processes is {processes}, but the launcher has started {size}", "leave out --processes under a launcher"
        )
    if processes > 1 and size == 1:
        options = [*(("--out", out) if out else ()), *(word for name in plugin or () for word in ("-p", name))]
        command = ["run", experiment, *(overrides or ()), *options, "--timeout", str(timeout)]
        raise SystemExit(launch([sys.executable, "-m", "hookline", *command], processes))  # the ranks have told
    api.run(document, overrides or [], out=out, plugins=plugin or [], timeout=timeout)
    return 0


@app.command()
def explain(experiment: Experiment, overrides: Overrides = None, plugin: Plugins = None, json: AsJson = False) -> None:
    """Show which components answer and wrap each hook, and their files; fails whenever `run` would refuse."""
    from hookline.cli.show import explain_json, explain_text
    from hookline.config.experiment import document_of
    from hookline.loop.api import plan
    from hookline.study.matrix import axes_of, members_of

    document, given = document_of(experiment), overrides or []
    members = [] if axes_of(document, given) is None else members_of(document, given, plugins=plugin or [])
    planned = members[0].plan if members else plan(document, given, plugin or [])
    names = [member.name for member in members]
    if json:
        typer.echo(as_json(explain_json(planned) | ({"matrix": names} if names else {})))
    else:
        typer.echo(explain_text(planned))
        if len(members) > 1:
            why, alone = ("levers", ["levers={}"]) if members[1].lever else ("matrix", [])
            given = [*alone, *members[1].overrides, *(word for name in plugin or () for word in ("-p", name))]
            typer.echo(_others(why, names, shlex.join(["hookline", "explain", experiment, *given])))


def _others(why: str, names: Sequence[str], command: str) -> str:
    """What `explain` says of the runs that it does not show. why: there are several. command: shows the second."""
    first, *rest = names
    more = f"  and {len(rest) - MOST_NAMED} more" if len(rest) > MOST_NAMED else ""
    return (
        f"{why:<10} {len(names)} runs; above is the first, {first}, and not {'  '.join(rest[:MOST_NAMED])}{more}\n"
        f"           to see another: {command}"
    )


MOST_NAMED = 20
"""Runs that `explain` names, of several."""


@app.command()
def doctor(json: AsJson = False) -> None:
    """Check the installation: versions, kernels, plugins, and how to fix what is missing."""
    from hookline.cli.doctor import examine, show

    found = examine()
    typer.echo(as_json(found) if json else show(found))
    if any(item["state"] == "broken" for item in found):
        raise typer.Exit(7)


@plugins_app.command("list")
def plugins_list(plugin: Plugins = None, json: AsJson = False) -> None:
    """List every offered component: kind, name, distribution, version, state. Imports none of them."""
    from hookline.cli.show import list_json, list_text

    found = list_json(plugin or [])
    typer.echo(as_json(found) if json else list_text(found))


@plugins_app.command("show")
def plugins_show(name: Annotated[str, typer.Argument()], plugin: Plugins = None, json: AsJson = False) -> None:
    """Show one component: what it does, its options, what it needs and gives, and its problem, if any."""
    from hookline.cli.show import show_json, show_text

    found = show_json(name, plugin or [])
    typer.echo(as_json(found) if json else show_text(found))
    if all(item["problem"] for item in found):
        raise typer.Exit(5)


@plugins_app.command("new")
def plugins_new(
    name: Annotated[str, typer.Argument(help="The name that experiments will use, e.g. my-method.")],
    kind: Annotated[
        str,
        typer.Option("--kind", help=", ".join(kind.asked for kind in taught()) + "."),
    ] = "algorithm",
    parent: Annotated[str, typer.Option("--dir", help="The folder in which hookline-NAME is created.")] = ".",
) -> None:
    """Create a distribution with a small working component, its tests, and an experiment that uses it."""
    from hookline.cli.kit import create

    typer.echo(create(name, kind, expanded(Path(parent))))


@plugins_app.command("check")
def plugins_check(
    name: Annotated[str, typer.Argument(help="A component, or a distribution for all of its components.")],
    options: Annotated[
        list[str] | None, typer.Argument(help="Options to check it with, e.g. gamma=0.9", metavar="[OPTION=VALUE]…")
    ] = None,
    plugin: Plugins = None,
    json: AsJson = False,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Also compare its steps on so many processes with those on one.")
    ] = 1,
) -> None:
    """Check a component against the contract, law by law, in a real phase with a tiny model; takes seconds, CPU only."""
    from hookline.cli.kit import check

    reports = check(name, options or [], plugin or [], processes)
    typer.echo(as_json([report.as_json() for report in reports]) if json else "\n\n".join(map(str, reports)))
    if codes := [report.exit_code for report in reports if report.exit_code]:
        raise typer.Exit(min(codes))
