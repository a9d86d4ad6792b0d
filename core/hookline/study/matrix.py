"""The runs of a sweep: seeds, a matrix of other settings, and levers, all planned before the first run starts."""

from __future__ import annotations

import itertools
import json
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hookline.config import problems as experiments
from hookline.config.experiment import Source, document_of
from hookline.config.overrides import enter, override, parse_value
from hookline.config.uses import normal_form
from hookline.config.yaml import COMPONENTS
from hookline.errors import ExperimentError, HooklineError, shorten

__all__ = ["UNCHANGED", "Member", "axes_of", "members_of", "parse_seeds"]


MOST_RUNS = 1000
UNCHANGED = "unchanged"
"""The name of the runs beside those of levers, which are as the file says."""


@dataclass(frozen=True)
class Member:
    """One combination: its directory's name, that name without the seed, its `key=value` overrides, its plan, and its lever."""

    name: str
    configuration: str
    overrides: tuple[str, ...]
    plan: Any
    lever: str = ""


def parse_seeds(seeds: str | int | Sequence[int]) -> list[int]:
    """`5` means seeds 1 to 5; `3,7,11`, or a list, means exactly these seeds."""
    if isinstance(seeds, int | str) and str(seeds).strip().isdigit():
        count = int(seeds)
        if not 1 <= count <= MOST_RUNS:
            raise ExperimentError(f"--seeds {count} asks for {count} runs", f"ask for 1 to {MOST_RUNS}")
        return list(range(1, count + 1))
    words = seeds.rstrip(",").split(",") if isinstance(seeds, str) else [str(seed) for seed in seeds]  # type: ignore[union-attr]
    if not words or not all(word.strip().isdigit() for word in words):
        raise ExperimentError(
            f"--seeds {shorten(seeds)} is not a list of seeds", "write a count, such as 5, or seeds, such as 3,7,11"
        )
    found = [int(word) for word in words]
    if len(set(found)) < len(found):
        raise ExperimentError(f"--seeds {shorten(seeds)} names a seed twice", "name each once")
    return found


def axes_of(
    experiment: Source, overrides: Sequence[str] = (), seeds: str | int | Sequence[int] | None = None
) -> dict[str, list[Any]] | None:
    """Override path → values of everything that varies; None if nothing varies, levers neither, so that there is one run.

    `--seeds` replaces the matrix's own seeds; an override of a path removes the axis with that path.
    """
    document = document_of(experiment)
    for assignment in overrides:
        key, _, text = assignment.partition("=")
        if key.startswith("matrix."):  # what follows is a path itself: matrix.phases.rl.update=[…]
            rest = {**(document.values.get("matrix") or {}), key.removeprefix("matrix."): parse_value(text)}
            document.values["matrix"] = rest
        elif key == "matrix":
            override(document, assignment)
    given = document.values.get("matrix")
    if not given and seeds is None and not levers_of(document, overrides):
        return None
    problems = [] if isinstance(given, Mapping | None) else [f"matrix must map override paths to lists, not {given!r}"]
    axes: dict[str, list[Any]] = {}
    for path, values in (given if isinstance(given, Mapping) else {}).items():
        where = document.where(("matrix", path))
        texts = (
            [_text(normal_form(value, path.rpartition(".")[2])) for value in values] if isinstance(values, list) else []
        )
        if not texts:
            problems.append(f"{where}matrix.{shorten(path)} is {shorten(_text(values))}; give a list of values")
        elif len(set(texts)) < len(texts):
            twice = next(text for text in texts if texts.count(text) > 1)
            problems.append(f"{where}matrix.{shorten(path)} contains {shorten(twice)} twice; keep one")
        elif "=" in path or path.split(".")[0] in ("matrix", "name"):
            problems.append(f"{where}matrix.{shorten(path)} cannot vary; name a path such as seed or phases.rl.update")
        else:
            axes[path] = values
    if problems:
        raise ExperimentError(f"{experiments.count(problems)} in {document.name}", "", problems)
    settled = [assignment.partition("=")[0] for assignment in overrides]
    if seeds is not None:
        if "seed" in settled:
            raise ExperimentError("the seed is given twice, by --seeds and by seed=…", "give only one of the two")
        axes["seed"] = parse_seeds(seeds)
    axes = {p: v for p, v in axes.items() if not any(p == key or p.startswith(f"{key}.") for key in settled)}
    total = 1
    for values in axes.values():
        total *= len(values)
    if total > MOST_RUNS:
        raise ExperimentError(f"the matrix makes {total} runs", f"a sweep can have at most {MOST_RUNS}")
    return axes


def members_of(
    experiment: Source,
    overrides: Sequence[str] = (),
    seeds: str | int | Sequence[int] | None = None,
    plugins: Sequence[str] = (),
) -> list[Member]:
    """Plan every combination; seeds vary slowest, so that the runs finished first can be compared.

    Raises one error that lists every problem once, with the combinations that have it.
    """
    from hookline.loop.api import plan

    document = document_of(experiment)
    axes = axes_of(document, overrides, seeds) or {}
    levers = levers_of(document, overrides)
    if len(levers or " ") * math.prod(map(len, axes.values())) > MOST_RUNS:
        raise ExperimentError(
            f"the levers make more than {MOST_RUNS} runs", f"a sweep can have at most {MOST_RUNS}; leave some out"
        )
    keys = sorted(axes, key=lambda path: path != "seed")
    own = [o for o in overrides if not re.match(r"(matrix|levers)[.=]", o)]
    combinations = itertools.product(itertools.product(*(axes[key] for key in keys)), levers or {"": ()})
    names: dict[str, int] = {}
    members: list[Member] = []
    failed: dict[str, list[tuple[str, str]]] = {}
    errors: list[HooklineError] = []
    every: list[tuple[str, str]] = []
    for values, lever in combinations:
        chosen = dict(zip(keys, values))
        parts = [*([lever] if lever else []), *(_label(path, chosen[path], list(axes)) for path in axes if path != "seed")]
        configuration = ",".join(parts) or "all"
        name = ",".join([*parts, *([f"seed={chosen['seed']}"] if "seed" in chosen else [])]) or "run"
        names[name] = names.get(name, 0) + 1
        name += f",{names[name]}" if names[name] > 1 else ""
        every.append((configuration, name))
        settings = tuple(f"{path}={_text(chosen[path])}" for path in axes)
        every_override = (*settings, *own, *levers.get(lever, ()))
        try:
            planned = plan(document, ["matrix={}", "levers={}", *every_override], plugins)
        except HooklineError as err:
            errors.append(err)
            for problem in getattr(err, "problems", ()) or [str(err)]:
                for setting in settings:  # the prefix of `_concerned` names the combination more briefly
                    problem = problem.removeprefix(f"{shorten(setting)}: ")
                failed.setdefault(problem, []).append((configuration, name))
            continue
        members.append(Member(name, configuration, every_override, planned, lever))
    if failed:
        problems = [_concerned(who, every) + problem for problem, who in failed.items()]
        error = ExperimentError(
            f"{experiments.count(problems)} in {document.name}, a sweep of {len(every)} runs", "", problems
        )
        if len({err.exit_code for err in errors}) == 1:
            error.exit_code = errors[0].exit_code
        raise error
    _none_without_effect(members, document.name)
    return members


def levers_of(experiment: Source, overrides: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """Name → `key=value` overrides of each lever, after one that changes nothing; empty if the experiment has no levers."""
    document = document_of(experiment)
    for assignment in overrides:
        if re.match(r"levers[.=]", assignment):
            override(document, assignment)
    given = document.values.get("levers") or {}
    problems = [] if isinstance(given, Mapping) else [f"levers must map names to what they change, not {given!r}"]
    found: dict[str, tuple[str, ...]] = {UNCHANGED: ()}
    for name, changes in (given if isinstance(given, Mapping) else {}).items():
        where = f"{document.where(('levers', name))}levers.{shorten(str(name))}"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", str(name)) or name == UNCHANGED:
            problems.append(f"{where} cannot be the name of a lever; use letters, digits and -, and not '{UNCHANGED}'")
        elif not isinstance(changes, Mapping) or not changes:
            problems.append(f"{where} is {shorten(_text(changes))}; give override paths with values: phases.ask.steps: 20")
        elif wrong := [path for path in changes if path.partition(".")[0] in ("matrix", "levers", "name", "seed")]:
            problems.append(f"{where} cannot change {shorten(str(wrong[0]))}; name a path such as phases.rl.update.lr")
        else:
            found[str(name)] = tuple(f"{path}={_text(value)}" for path, value in changes.items())
    if problems:
        raise ExperimentError(f"{experiments.count(problems)} in {document.name}", "", problems)
    return found if given else {}


def _none_without_effect(members: Sequence[Member], name: str) -> None:
    """Refuse levers whose runs would be equal to those without them."""
    before = None
    for member in members:  # the run without a lever comes before those with one
        values = member.plan.experiment.resolved()
        if member.lever == UNCHANGED:
            before = values
        elif member.lever and values == before:
            raise ExperimentError(
                f"the lever '{member.lever}' of {name} changes nothing", "give it other values, or remove it"
            )


def left_out(experiment: Source, axes: Mapping[str, Sequence[Any]]) -> list[str]:
    """Notices about options of a component in the file that a value of the matrix drops by replacing the component."""
    values = document_of(experiment).values
    notices = []
    for path, options in axes.items():
        place: Any = values
        try:
            for part in path.split("."):
                for step in enter(place, part, path):
                    place = place[step]
        except (HooklineError, KeyError, TypeError, IndexError):
            continue
        if not (isinstance(place, Mapping) and "use" in place):
            continue
        lost = {
            _component(normal_form(value, "use")): [key for key in place if key not in ("use", "name", *value_keys)]
            for value in options
            for value_keys in [list(value) if isinstance(value, Mapping) else []]
        }
        if any(lost.values()):
            who, keys = next((who, keys) for who, keys in lost.items() if keys)
            notices.append(
                f"{path}: '{who}' drops {', '.join(keys)} set in the file, because it replaces the whole entry; vary "
                f"{path}.use to keep the options"
            )
    return notices


def _text(value: Any) -> str:
    """A value as it is written after `key=` on the command line."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _concerned(who: Sequence[tuple[str, str]], every: Sequence[tuple[str, str]]) -> str:
    """The prefix of a problem: empty if all runs have it, else the configurations or the runs that do."""
    if len(who) == len(every):
        return ""
    whole = [c for c in dict.fromkeys(c for c, _ in who) if all(pair in who for pair in every if pair[0] == c)]
    names = [*whole, *(name for configuration, name in who if configuration not in whole)]
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: "


def _label(path: str, value: Any, paths: Sequence[str]) -> str:
    """One axis in a directory's name: the component's name, or `lr=0.001`."""
    parts = path.split(".")
    short = next(
        tail
        for tail in (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
        if sum(other == tail or other.endswith(f".{tail}") for other in paths) == 1 or tail == path
    )
    component = parts[-1] in COMPONENTS or parts[-1] == "use" or (isinstance(value, Mapping) and "use" in value)
    text = _component(normal_form(value, "use")) if component else _word(value)
    if not component or text in ("none", "true", "false"):
        text = f"{short}={text}"
    text = re.sub(r"[^\w.+=,-]+", "-", text, flags=re.ASCII)
    return text if len(text) <= 60 else f"{text[:50]}-{uuid.uuid5(uuid.NAMESPACE_OID, text).hex[:6]}"


def _component(value: Any) -> str:
    """`rloo`, `rloo,lr=0.001`, or its own `name` if it has one; a list's items are joined by +."""
    if isinstance(value, list):
        return "+".join(map(_component, value)) or "none"
    if isinstance(value, Mapping) and isinstance(value.get("use"), str):
        options = [f"{key}={_word(item)}" for key, item in value.items() if key not in ("use", "name")]
        return str(value.get("name") or ",".join([value["use"], *options]))
    return _word(value)


def _word(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
