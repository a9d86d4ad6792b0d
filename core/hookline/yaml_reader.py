"""YAML as people mean it: safe, no key twice, `1e-3` is a number, `no` is a word, and every value knows its line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hookline.errors import ExperimentError

__all__ = ["Document", "parse_value", "read"]

Path_ = tuple[str | int, ...]
MOST_BYTES, MOST_NODES, MOST_DEPTH = 4 << 20, 50_000, 60


@dataclass
class Document:
    """The values of a file, and where each stands."""

    name: str
    values: dict[str, Any]
    lines: dict[Path_, int] = field(default_factory=dict)

    def where(self, path: Sequence[str | int]) -> str:
        """`line 24: ` of the value, or of the nearest thing around it; nothing for values that came from elsewhere."""
        place = tuple(path)
        while place and place not in self.lines:
            place = place[:-1]
        return f"line {self.lines[place]}: " if place else ""


class _Loader(yaml.SafeLoader):
    """Safe loading with numbers and words as YAML 1.2 has them."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]{1,40}", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), [*_first.replace("\0", ""), ""])
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(str(node.value)))


def read(path: Path) -> Document:
    """One experiment file. Raises ExperimentError with the line for everything that is not a plain mapping."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ExperimentError(
            f"no experiment file {path}", "check the path; examples/ holds some to start from"
        ) from None
    except IsADirectoryError:
        raise ExperimentError(f"{path} is a folder, not an experiment file", "name the .yaml file in it") from None
    except OSError as err:
        raise ExperimentError(f"{path} cannot be read: {err.strerror}", "check its permissions") from None
    if len(raw) > MOST_BYTES:
        raise ExperimentError(
            f"{path} is {len(raw)} bytes, an experiment has at most {MOST_BYTES}", "is it the right file?"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as err:
        raise ExperimentError(f"{path} is not UTF-8 at byte {err.start}", "save it as UTF-8") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Document:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise ExperimentError(f"{name} is empty", "an experiment is a mapping with name, model and phases")
        lines: dict[Path_, int] = {}
        problems: list[str] = []
        values = _build(loader, node, (), lines, problems, [0], ())
    except yaml.composer.ComposerError as err:
        mark = err.problem_mark
        what = "holds more than one YAML document" if "single document" in str(err) else str(err.problem)
        raise ExperimentError(
            f"{name} line {mark.line + 1 if mark else '?'}: {what}", "keep one mapping per file"
        ) from None
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        what = getattr(err, "problem", None) or str(err).splitlines()[0]
        line = f" line {mark.line + 1}" if mark else ""
        raise ExperimentError(f"{name}{line}: not YAML: {what}", "check indentation, colons and quotes there") from None
    except RecursionError:
        raise ExperimentError(
            f"{name} is nested too deeply", f"an experiment is at most {MOST_DEPTH} levels deep"
        ) from None
    finally:
        loader.dispose()
    if problems:
        raise ExperimentError(_count(problems, name), "", problems)
    if not isinstance(values, dict):
        kind = {"list": "a list", "str": "text"}.get(type(values).__name__, f"a {type(values).__name__}")
        raise ExperimentError(f"{name} holds {kind}, not a mapping", "an experiment starts with `name: …`")
    return Document(name, values, lines)


def _count(problems: Sequence[str], name: str) -> str:
    return f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in {name}"


def _build(
    loader: _Loader,
    node: yaml.Node,
    path: Path_,
    lines: dict[Path_, int],
    problems: list[str],
    seen: list[int],
    parents: tuple[int, ...],
) -> Any:
    seen[0] += 1
    line = node.start_mark.line + 1
    if id(node) in parents:
        raise ExperimentError(f"line {line}: an alias contains itself", "write the value out")
    if seen[0] > MOST_NODES or len(path) > MOST_DEPTH:
        raise ExperimentError(
            f"line {line}: more than {MOST_NODES} values or {MOST_DEPTH} levels", "aliases may multiply"
        )
    lines[path] = line
    inside = (*parents, id(node))
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            at = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(f"line {at}: a key must be a word")
                continue
            key = str(key_node.value)
            if key in first:
                problems.append(f"line {at}: '{key}' stands here and on line {first[key]}; keep one")
                continue
            first[key] = at
            values[key] = _build(loader, value_node, (*path, key), lines, problems, seen, inside)
            lines[(*path, key)] = at
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, n, (*path, i), lines, problems, seen, inside) for i, n in enumerate(node.value)]
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError):
        problems.append(f"line {line}: '{str(node.value)[:40]}' is no plain value ({node.tag})")
        return None


def parse_value(text: str) -> Any:
    """The value of a `key=value` on the command line, read as YAML."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _build(loader, node, (), {}, [], [0], ())
    except yaml.YAMLError:
        return text
    finally:
        loader.dispose()


def override(document: Document, assignment: str) -> None:
    """Apply `a.b.c=value`. Lists are entered by position, or by an item's `name` or `use`: `phases.rl.update.lr=1e-5`."""
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise ExperimentError(f"'{assignment}' is no override", "write key=value, e.g. seed=2 or phases.rl.steps=10")
    if text == "":
        raise ExperimentError(
            f"'{assignment}' gives no value; did the shell eat the quotes?", f"write '{key}=…' in quotes"
        )
    path = key.split(".")
    place: Any = document.values
    real: list[str | int] = []
    for depth, part in enumerate(path[:-1]):
        step = _enter(place, part, ".".join(path[: depth + 1]))
        if isinstance(place, dict) and step not in place:
            place[str(step)] = {}
        elif isinstance(place[step], str) and depth > 0:
            place[step] = {"use": place[step]}
        place = place[step]
        real.append(step)
    if not isinstance(place, dict | list):
        where = ".".join(path[:-1])
        raise ExperimentError(
            f"override '{key}': '{where}' holds {place!r}, so nothing can be set inside it", "shorten it"
        )
    last: Any = _enter(place, path[-1], key)
    place[last] = parse_value(text)
    document.lines.pop((*real, last), None)


def _enter(place: Any, part: str, shown: str) -> str | int:
    if isinstance(place, list):
        names = [item.get("name") or item.get("use") if isinstance(item, dict) else item for item in place]
        if part in names:
            return names.index(part)
        if part.isdigit() and int(part) < len(place):
            return int(part)
        raise ExperimentError(f"override '{shown}': no item '{part}' there", f"there are: {', '.join(map(str, names))}")
    if not isinstance(place, dict):
        raise ExperimentError(f"override '{shown}': it stands inside {place!r}, which holds nothing", "check the path")
    return part
