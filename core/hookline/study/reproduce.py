"""Repeats a run from its own records, and compares the two bit for bit."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookline.errors import CheckpointError, DataError, shorten
from hookline.runs.directory import COLLECTED
from hookline.runs.run import Run
from hookline.storage.paths import expanded
from hookline.study.finished import threads
from hookline.world.notebook import beside_event_loops

if TYPE_CHECKING:
    from hookline.plan.plan import Plan
    from hookline.runs.surroundings import Surroundings

__all__ = ["reproduce"]

RULES_OUT = frozenset({"processes", "torch", "machine", "arithmetic", "device", "threads", "kernels"})
"""What must be unchanged for sums to round equally. Another processor or changed code may still give equal bits; the
comparison shows whether they do."""
CALLED = {"arithmetic": "the matrix library", "threads": "the number of CPU threads", "machine": "the machine type"}


@beside_event_loops
def reproduce(
    run: Run | str | Path,
    out: str | Path | None = None,
    *,
    until: str | None = None,
    anyway: bool = False,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Repeat a run in another directory, and compare rows, evaluations and final weights with the original.

    The resolved experiment, the copied loose plugins, the seed and the number of threads are those of the run. Recorded
    answers of a person, a judge or a service are replayed, not asked for again. Times, dates and ids are not compared.

    run: a run, or its directory. out: the directory of the new run, by default `RUN-reproduced` beside the original; an
    interrupted reproduction there is resumed. until: the last phase to repeat, by default the last one that the run has
    finished. anyway: run and compare even if something has changed that must be equal for equal bits, such as data or
    threads. say: receives the sentences that `hookline reproduce` prints.

    Returns {"run", "out", "equal", "rows", "evaluations", "phases", "replayed", "asked", "changes", "differences"}:
    the numbers of compared rows and evaluations and the names of the compared phases; how many recorded answers were
    replayed, and how many had to be asked for because the run had not recorded them; a sentence for each change since
    the run; and a sentence for each first difference in results, none if `equal` is True.

    Raises CheckpointError for a run that has finished no phase or cannot be repeated exactly, ExperimentError for an
    unknown phase, DataError for missing data, PluginError for a component that is not installed any more, and
    whatever `hookline.run` raises.
    """
    from hookline.loop.api import begin, open_run, plan_of
    from hookline.loop.loop import run_experiment
    from hookline.runs.surroundings import Surroundings

    told = say or (lambda sentence: None)
    first = Run.read(run.directory if isinstance(run, Run) else Path(run))
    try:
        plan = plan_of(first)
        for _, name in plan.data():
            plan.catalogue.exists(name)
    except DataError as err:
        err.hint = "restore it; a relative path is looked up from the folder you are in"
        raise
    phases = _phases(first, plan, until, told)
    number = plan.experiment.threads or first.about.get("threads")
    now = Surroundings.now(plan.offers, number, plan.experiment.device)
    changes = dict(_changes(first, plan, now))
    fatal = [sentence for sentence, rules_out in changes.items() if rules_out]
    if fatal and not anyway:
        raise CheckpointError(
            f"{first.directory} cannot be repeated bit for bit: {'; '.join(fatal)}",
            "restore what has changed, or run and compare anyway with --anyway",
        )
    for sentence, rules_out in changes.items():
        told(f"changed: {sentence}; {'equal results cannot be expected' if rules_out else 'this may change results'}")
    directory = expanded(Path(out)) if out else _beside(first.directory)
    if directory.exists() and directory.samefile(first.directory):
        raise CheckpointError(f"{directory} is the run itself", "choose another directory with --out")
    again = open_run(directory, plan)
    try:
        _refuse_others(again, first, phases)
        again.note(reproduces=first.id)
        again.journal.take_over(first.journal)
        if len(first.journal):
            told(f"replayed: {len(first.journal)} recorded answers, from {first.directory}; none is asked for again")
        with threads(number):
            begin(again, plan)
            made = [phase for phase in plan.phases if phase.spec.name in phases]
            run_experiment(dataclasses.replace(plan, phases=tuple(made)), again)
    finally:
        again.close()
    asked = len(again.journal) - len(first.journal)
    if asked:
        told(f"asked anew: {asked} answers that {first.directory} does not hold")
    counts, differences = _compare(first, Run.read(directory), phases)
    kept = f"{_count(counts['rows'], 'row')}, {_count(counts['evaluations'], 'evaluation')}"
    if differences:
        told("\n".join(f"different: {sentence}" for sentence in differences))
    else:
        told(f"equal: {kept}, weights of {_count(len(phases), 'phase')}")
    return {
        "run": str(first.directory),
        "out": str(directory),
        "equal": not differences,
        **counts,
        "phases": phases,
        "replayed": len(first.journal),
        "asked": asked,
        "changes": list(changes),
        "differences": differences,
    }


def _phases(run: Run, plan: Plan, until: str | None, told: Callable[[str], None]) -> list[str]:
    """The names of the phases to repeat: all that have ended, up to the phase `until`."""
    from hookline.loop.api import phase_named

    names = [phase.spec.name for phase in plan.phases]
    given = {phase.spec.name: phase.spec.steps for phase in plan.phases}
    ended = list(itertools.takewhile(lambda name: run.finished(name, given[name]) is not None, names))
    wanted = names if until is None else names[: names.index(phase_named(plan, until).spec.name) + 1]
    if len(wanted) <= len(ended):
        return wanted
    rows = [row for row in run.rows() if row["phase"] == names[len(ended)]]
    steps = f"after step {rows[-1]['step']} of " if rows else "before "
    unfinished = f"{run.directory} is unfinished: it stopped {steps}phase '{names[len(ended)]}'"
    if until is not None or not ended:
        raise CheckpointError(
            unfinished, f"finish it with hookline run … --out {run.directory}; phases that ended can be repeated"
        )
    told(f"{unfinished}; the phases that ended are repeated: {', '.join(ended)}")
    return ended


def _changes(run: Run, plan: Plan, now: Surroundings) -> Iterator[tuple[str, bool]]:
    """(sentence, whether it rules out equal bits) for everything that results depend on and that has changed."""
    from hookline.models.folder import folder_hash
    from hookline.runs.surroundings import experiment_hash

    written = run.about.get("experiment_sha256")
    experiment = json.loads((run.directory / "experiment.json").read_text(encoding="utf-8"))
    if written is not None and written != experiment_hash(experiment):
        yield "experiment.json has changed since the run began", True
    for change in run.about.get("lengthened", ()):
        yield f"phase '{change['phase']}' was given {change['to']} steps instead of {change['from']} after {change['done']}", True
    for name in list(run.about.get("data", {})):
        try:
            if name.startswith("model:"):
                run.pin(name, folder_hash(name.removeprefix("model:")))
            elif not name.startswith("phase:"):  # data that a phase collected is collected again
                run.data(name)
        except (CheckpointError, DataError) as err:
            yield err.message, True
    found = now.differences(run.about)
    loose = {f"plugin {offer.name}" for offer in (*plan.loose, *plan.offers) if offer.path}
    own = {f"plugin {offer.name}" for offer in plan.offers if offer.built_in}
    for key, text in found.items():
        if key in own and "sources" in found:
            continue  # the sentence about Hookline's own code covers it
        if key == "sources":
            yield "Hookline's own code has changed since the run", False
        elif key.startswith("plugin "):
            yield f"{text} since the run", key in loose
        else:
            values = run.about[key], now.values[key]
            yield f"{CALLED.get(key, key)} was {values[0]} and is now {values[1]}", key in RULES_OUT
    for key, text in run.about.get("resumed_with", {}).items():
        yield f"the run itself was resumed after something had changed ({text})", key in RULES_OUT


def _beside(directory: Path) -> Path:
    named = directory if directory.name not in ("", "..") else directory.resolve()
    return named.with_name(f"{named.name}-reproduced")


def _refuse_others(again: Run, first: Run, phases: Sequence[str]) -> None:
    """Refuse a directory that holds another run, or a finished reproduction, which older code may have made."""
    if again.resumed and again.about.get("reproduces") != first.id:
        raise CheckpointError(
            f"{again.directory} holds a run that is not a reproduction of {first.directory}",
            "choose another directory with --out",
        )
    if all(again.phase_folder(name).exists() for name in phases):
        raise CheckpointError(
            f"{again.directory} holds a finished reproduction", "remove it, or choose another directory with --out"
        )


def _compare(first: Run, again: Run, phases: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """The numbers of rows and evaluations, and sentences about the first difference of each and of each phase's end."""
    differences: list[str] = []
    counts = {}
    for what, read in (("rows", Run.rows), ("evaluations", Run.evaluations)):
        old, new = ([entry for entry in read(run) if entry["phase"] in phases] for run in (first, again))
        counts[what] = len(old)
        unequal = [pair for pair in zip(old, new) if _bits(pair[0]) != _bits(pair[1])]
        if unequal:
            sentence = (_row if what == "rows" else _evaluation)(*unequal[0])
            differences.append(f"{len(unequal)} of {len(old)} {what} differ; first {sentence}")
        if len(old) != len(new):
            differences.append(f"the run has {len(old)} {what}, its reproduction has {len(new)}")
    for name in phases:
        ends = [run.finished(name) or {} for run in (first, again)]
        files = [{path: about["sha256"] for path, about in end["files"].items() if _is_result(path)} for end in ends]
        changed = [path for path in dict.fromkeys([*files[0], *files[1]]) if files[0].get(path) != files[1].get(path)]
        if changed:
            differences.append(f"phase '{name}' ends with different contents of {', '.join(changed)}")
    return counts, differences


def _is_result(path: str) -> bool:
    """Whether a file of a finished phase holds weights or collected rows."""
    return path.endswith(".safetensors") or path == COLLECTED


def _bits(value: Any) -> str:
    """A row or an evaluation as text, without its times: equal text means equal bits, also for NaN and −0."""
    kept = {key: item for key, item in value.items() if key != "timings"} if isinstance(value, Mapping) else value
    return json.dumps(kept, sort_keys=True)


def _row(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    where = f"row {old['row']} (phase '{old['phase']}', step {old['step']})"
    if (old["phase"], old["step"]) != (new["phase"], new["step"]):
        return f"{where}, which is phase '{new['phase']}', step {new['step']} in the reproduction"
    return f"{where}: {_figure(old['metrics'], new['metrics'])}"


def _evaluation(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    where = f"evaluation '{old['name']}' after step {old['step']} of phase '{old['phase']}'"
    for number, (before, after) in enumerate(zip(old["samples"], new["samples"])):
        if _bits(before) != _bits(after):
            flat = [{**sample, **sample["terms"]} for sample in (before, after)]
            return f"{where}, sample {number}: {_figure(*({k: v for k, v in f.items() if k != 'terms'} for f in flat))}"
    return f"{where}: {len(old['samples'])} samples then, {len(new['samples'])} now"


def _figure(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first value of two rows that differs."""
    key = next(k for k in dict.fromkeys([*old, *new]) if _bits(old.get(k)) != _bits(new.get(k)))
    was, now = (shorten(repr(row[key])) if key in row else "missing" for row in (old, new))
    return f"{key} was {was} and is {now}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
