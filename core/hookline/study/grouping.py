"""Groups runs by configuration, and finds what differs between configurations."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hookline.config.uses import normal_form
from hookline.contract.fields import instance_name
from hookline.errors import CheckpointError, ExperimentError
from hookline.runs.directory import json_of
from hookline.runs.run import Run
from hookline.storage.paths import expanded

Json = dict[str, Any]
NOT_CONFIGURATION = ("seed", "name", "trackers", "plugins", "threads", "matrix", "levers", "folder")


@dataclass(eq=False)
class Entry:
    """One run that is compared."""

    run: Run
    argument: int
    """The position of the command-line argument that named the run."""
    label: str
    """The user's label, or the name of the folder that was given."""
    given: bool
    """Whether the user gave the label."""
    lever: str = ""
    """The lever of a sweep that this run belongs to, if the sweep has levers."""
    experiment: Json = field(default_factory=dict)
    configuration: dict[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return int(self.experiment["seed"])

    @property
    def where(self) -> str:
        return str(self.run.directory)

    def phase(self, name: str) -> Json | None:
        return next((phase for phase in self.experiment["phases"] if phase["name"] == name), None)

    def steps(self, phase: str) -> int:
        """The steps that a phase has taken if it has ended, else those that it is to take."""
        manifest = self.run.phase_folder(phase) / "manifest.json"
        said: Json = json_of(manifest) if manifest.is_file() else {}
        return int(said["steps"] if "steps" in said else (self.phase(phase) or {"steps": 0})["steps"])

    def rows(self, phase: str) -> list[Json]:
        return [row for row in self.run.rows() if row["phase"] == phase]


def entries_of(arguments: Sequence[str | Path]) -> tuple[list[Entry], list[str]]:
    """The named runs, each once: run directories, and folders that contain some, optionally as LABEL=PATH."""
    found: list[Entry] = []
    notes: list[str] = []
    seen: dict[Path, str] = {}
    for number, argument in enumerate(arguments):
        label, path, given = labelled(argument)
        for directory, lever in _directories(path):
            real = directory.resolve()
            if real in seen:
                notes.append(f"{directory} was named twice and is counted once")
                continue
            seen[real] = label
            own = f"{label}: {lever}" if given and lever else lever or label
            entry = Entry(Run.read(directory), number, own, given or bool(lever), lever)
            entry.experiment = entry.run.experiment
            try:
                entry.configuration = configuration_of(entry.run, entry.experiment)
            except (KeyError, TypeError, AttributeError) as err:
                raise CheckpointError(
                    f"{directory / 'experiment.json'} is not a resolved experiment ({type(err).__name__}: {err})",
                    "the run directory is damaged; restore the file",
                ) from None
            found.append(entry)
    return found, notes


def labelled(argument: str | Path) -> tuple[str, Path, bool]:
    """(label, path, whether the user gave the label) of `LABEL=PATH` or `PATH`."""
    path = Path(argument)
    label, equals, rest = str(argument).partition("=")
    if equals and label and "/" not in label and not os.path.exists(path):
        return label, expanded(Path(rest)), True
    path = expanded(path)
    return path.resolve().name, path, False


def _directories(path: Path) -> list[tuple[Path, str]]:
    """The directory of one run, or of all runs in a sweep or any other folder, in the sweep's own order; each with its lever."""
    if Run.is_one(path):
        return [(path, "")]
    if not os.path.isdir(path):
        raise CheckpointError(f"{path} is not a run directory", "give a directory that `hookline run` made")
    listed: list[str] = []
    levers: dict[str, str] = {}
    if (path / "sweep.json").is_file():
        try:
            about = json.loads((path / "sweep.json").read_text(encoding="utf-8"))
            listed = [str(run["name"]) for run in about["runs"]]
            levers = {str(run["name"]): str(run.get("lever", "")) for run in about["runs"]}
        except (OSError, ValueError, TypeError, KeyError) as err:
            raise CheckpointError(f"{path / 'sweep.json'} cannot be read: {err}", "restore or remove it") from None
        begun = [name for name in listed if (path / name / "run.json").is_file()]
        if len(begun) < len(listed):
            missing = next(name for name in listed if name not in begun)
            raise CheckpointError(
                f"the sweep {path} is not finished: {missing} has not begun",
                "finish the sweep with the command that began it, or name the runs themselves",
            )
    there = sorted(p.parent.name for p in path.glob("*/run.json"))
    if not there:
        raise CheckpointError(f"{path} contains no run", "give a directory that `hookline run` made")
    return [(path / name, levers.get(name, "")) for name in dict.fromkeys([*listed, *there])]


def configuration_of(run: Run, experiment: Json) -> dict[str, str]:
    """Path → value of everything but the seed that may change a result. Items of lists are keyed by their own name."""
    values = {key: value for key, value in normal_form(experiment).items() if key not in NOT_CONFIGURATION}
    values["phases"] = {p["name"]: {k: v for k, v in p.items() if k not in ("name", "save", "completions")} for p in values["phases"]}
    found = dict(_flat(values, ""))
    found["phases"] = ",".join(values["phases"])
    for offer in run.about.get("plugins", []):
        if offer["kind"] != "tracker":
            found[f"code.{offer['kind']}.{offer['name']}"] = f"{offer['distribution']} {offer['sha256'][:6]}"
    for name, data in run.about.get("data", {}).items():
        if not name.startswith("phase:"):  # what the run itself has collected is its result
            found[f"data.{name}"] = data["sha256"][:6]
    return found


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    here = f"{path}." if path else ""
    if isinstance(value, Mapping) and "use" in value and "options" in value:
        yield f"{path}!", instance_name(value)
        yield f"{here}use", str(value["use"])
        if value.get("weight", 1.0) != 1.0:
            yield f"{here}weight", _plain(value["weight"])
        yield from _flat(value["options"], path)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{here}{key}")
    elif (
        isinstance(value, list) and value and all(isinstance(v, Mapping) and ("use" in v or "name" in v) for v in value)
    ):
        names = [instance_name(item) if "use" in item else str(item["name"]) for item in value]
        yield f"{path}!", "+".join(names)
        for name, item in zip(names, value):
            yield from _flat({k: v for k, v in item.items() if k != "name" or "use" in item}, f"{here}{name}")
    elif value is not None and value != [] and value != {}:
        yield path, _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def differing(configurations: Sequence[Mapping[str, str]]) -> list[str]:
    """Paths at which some configuration differs from another."""
    paths = dict.fromkeys(path for configuration in configurations for path in configuration)
    return [path for path in paths if len({configuration.get(path) for configuration in configurations}) > 1]


def labels_of(configurations: Sequence[Mapping[str, str]]) -> list[str]:
    """The shortest labels that tell configurations apart: components first, then options, only as many as needed."""
    left = differing(configurations)
    left = [p for p in left if not (p.endswith(".use") and f"{p.removesuffix('.use')}!" in left)]
    chosen: list[str] = []

    def kinds(paths: Sequence[str]) -> int:
        return len({tuple(c.get(path) for path in paths) for c in configurations})

    def cost(path: str) -> tuple[int, bool, bool, int]:
        return -kinds([*chosen, path]), path.startswith(("code.", "data.")), not path.endswith("!"), len(path)

    while kinds(chosen) < len(configurations) and left:
        best = min(left, key=cost)
        chosen.append(best)
        left.remove(best)
    return [", ".join(_word(path, c.get(path), chosen) for path in chosen) or "all" for c in configurations]


def _word(path: str, value: str | None, chosen: Sequence[str]) -> str:
    bare = path.removesuffix("!")
    parts = bare.split(".")
    tails = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
    short = next(t for t in tails if sum(p.removesuffix("!").endswith(t) for p in chosen) == 1 or t == bare)
    if path.endswith("!"):
        return value or f"no {short}"
    return f"{short}={value if value is not None else 'default'}"


@dataclass(eq=False)
class Group:
    """One configuration's runs, by seed."""

    label: str
    entries: list[Entry]

    @property
    def seeds(self) -> list[int]:
        return [entry.seed for entry in self.entries]


def groups_of(entries: Sequence[Entry], notes: list[str]) -> list[Group]:
    """Runs by configuration, in the order given; where needed, also by label or by folder.

    The user's own labels always separate runs. Without labels, folders do if they contain the same configuration with
    equal seeds, or one configuration alone: the user can then only mean to compare the folders with each other.
    """
    keys = [json.dumps(entry.configuration, sort_keys=True) for entry in entries]
    pairs = [(key, entry.seed) for key, entry in zip(keys, entries)]
    folders = {entry.argument for entry in entries}
    apart = len(set(pairs)) < len(pairs) or (len(set(keys)) == 1 and 1 < len(folders) < len(entries))
    grouped: dict[tuple[str, str], list[Entry]] = {}
    for key, entry in zip(keys, entries):
        side = f"={entry.label}" if entry.given else str(entry.argument) if apart else ""
        grouped.setdefault((side, key), []).append(entry)
    for members in grouped.values():
        members.sort(key=lambda entry: entry.seed)
        for one, two in itertools.pairwise(members):
            if one.seed == two.seed:
                raise ExperimentError(
                    f"{one.where} and {two.where} have the same configuration and the same seed",
                    "name only one of them",
                )
    if apart and not all(entry.given for entry in entries):
        notes.append("the same configuration is in several folders, so runs are grouped by folder")
    by_side: dict[str, list[tuple[str, list[Entry]]]] = {}
    for (side, key), members in grouped.items():
        by_side.setdefault(side, []).append((key, members))
    labels = dict(zip(dict.fromkeys(keys), labels_of([json.loads(key) for key in dict.fromkeys(keys)])))
    found: dict[str, Group] = {}
    for side, several in by_side.items():
        for key, members in several:
            own = members[0].label if side else ""
            label = ": ".join(part for part in (own, labels[key] if len(several) > 1 or not side else "") if part)
            number = sum(name == label or name.startswith(f"{label} (") for name in found)
            label = f"{label} ({number + 1})" if number else label
            found[label] = Group(label, members)
    order = {id(entry): place for place, entry in enumerate(entries)}
    return sorted(found.values(), key=lambda group: min(order[id(entry)] for entry in group.entries))
