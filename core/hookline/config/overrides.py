"""`key=value`: one value of an experiment, changed from the command line."""

from __future__ import annotations

import re
from typing import Any

import yaml

from hookline.config.problems import UNNAMED
from hookline.config.yaml import COMPONENTS, MOST_DEPTH, Document, Loader, TooMuch, build
from hookline.errors import ExperimentError, shorten

__all__ = ["enter", "override", "parse_value"]


def parse_value(text: str) -> Any:
    """The value of a `key=value` on the command line, read as YAML; text that is not YAML stays text."""
    problems: list[str] = []
    loader = None
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        value = None if node is None else build(loader, node, (), {}, problems, [0], ())
    except yaml.YAMLError:
        return text
    except (TooMuch, RecursionError):
        raise ExperimentError(
            f"'{shorten(text)}' has too many values or levels", "write such values into the file"
        ) from None
    finally:
        if loader is not None:
            loader.dispose()
    if problems:
        raise ExperimentError(f"'{shorten(text)}': {problems[0].partition(': ')[2]}", "write one plain value")
    return value


def override(document: Document, assignment: str) -> None:
    """Apply `a.b.c=value`. Lists are entered by position, or by an item's `name` or `use`: `phases.rl.update.lr=1e-5`."""
    key, equals, text = assignment.partition("=")
    shown = shorten(assignment)
    if not equals or not key:
        raise ExperimentError(f"'{shown}' is not an override", "write key=value, e.g. seed=2 or phases.rl.steps=10")
    if not text.strip():
        raise ExperimentError(
            f"'{shown}' gives no value; did the shell remove the quotes?", f"write '{shorten(key)}=…' in quotes"
        )
    path = key.split(".")
    if len(path) > MOST_DEPTH or not all(path):
        raise ExperimentError(f"'{shown}' is not an override", "write key=value, e.g. seed=2 or phases.rl.steps=10")
    place: Any = document.values
    real: list[str | int] = []
    for depth, part in enumerate(path[:-1]):
        *outer, step = enter(place, part, ".".join(path[: depth + 1]))
        for key in outer:
            place = place[key]
        if isinstance(place, dict) and place.get(step) is None:
            place[step] = {}
        elif isinstance(place[step], str) and COMPONENTS & {step, *real[-1:]}:
            place[step] = {"use": place[step]}
        place = place[step]
        real += [*outer, step]
    if not isinstance(place, dict | list):
        where = shorten(".".join(path[:-1]))
        raise ExperimentError(
            f"override '{shown}': '{where}' holds {shorten(repr(place))}, so nothing can be set inside it",
            "shorten the path",
        )
    *outer, last = enter(place, path[-1], key)
    for step in outer:
        place = place[step]
    real += outer
    before = place.get(last) if isinstance(place, dict) else None
    try:
        place[last] = parse_value(text)
    except ExperimentError as err:
        raise ExperimentError(f"override {shorten(key)}={err.message}", err.hint) from None
    gone = [str(name) for name in before if name not in ("use", "name")] if isinstance(before, dict) else []
    if gone and last in COMPONENTS and isinstance(place[last], str):
        document.notes.append(
            f"{shown} drops {', '.join(gone)}, set in the file for '{before.get('use')}', because it replaces the whole entry; "  # type: ignore[union-attr]
            f"{shorten(key)}.use={shorten(place[last])} keeps the options"
        )
    whole = (*real, last)
    for known in [p for p in document.lines if p[: len(whole)] == whole]:
        del document.lines[known]
    document.overrides[whole] = assignment


def enter(place: Any, part: str, shown: str) -> list[Any]:
    """The key or position that a part of an override's path means inside `place`, as one or more steps.

    A phase inside a `repeat` is found by its name alone, so an override reaches all of its rounds.
    """
    unnamed = UNNAMED.get(shown.split(".")[-2]) if "." in shown else None
    shown = shorten(shown)
    if isinstance(place, list):
        names = [item.get("name") or item.get("use") or unnamed if isinstance(item, dict) else item for item in place]
        short = [name.rpartition(":")[2] if isinstance(name, str) else name for name in names]
        for known in (names, short):
            if part in known:
                return [known.index(part)]
        if re.fullmatch(r"[0-9]{1,6}", part) and int(part) < len(place):
            return [int(part)]
        for i, item in enumerate(place):
            inner = item.get("phases") if isinstance(item, dict) and "repeat" in item else None
            inside = [phase.get("name") if isinstance(phase, dict) else None for phase in inner or ()]
            if part in inside:
                return [i, "phases", inside.index(part)]
            names += inside
        names = [name for name in names if name]
        there = ", ".join(shorten(name, 30) for name in names[:20])
        raise ExperimentError(
            f"override '{shown}': there is no item '{shorten(part)}'", f"there are: {there or 'none'}"
        )
    if not isinstance(place, dict):
        raise ExperimentError(
            f"override '{shown}': the path leads inside {shorten(repr(place))}, which is a single value",
            "check the path",
        )
    return [part]
