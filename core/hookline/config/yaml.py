"""YAML as people expect it: safe, without duplicate keys, `1e-3` is a number, `no` is a word, and each value has a line."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hookline.contract.kinds import KINDS
from hookline.errors import ExperimentError, a, shorten

__all__ = ["COMPONENTS", "MOST_DEPTH", "Document", "Loader", "Place", "TooMuch", "build", "read"]

Place = tuple[str | int, ...]
"""The place of a value in an experiment: keys, and positions in lists."""
MOST_BYTES, MOST_NODES, MOST_DEPTH = 1 << 18, 20_000, 60
PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "null", "bool", "int", "float")}
COMPONENTS = {"head", "adapter", "build"} | {
    kind.section or kind.name
    for kind in KINDS.values()
    if kind.name != "model" and (kind.section or kind.scope == "component")
}
"""The keys under which an experiment names a component; for a model, the keys of its parts."""


@dataclass
class Document:
    """The values of a file, and the line of each value."""

    name: str
    values: dict[str, Any]
    lines: dict[Place, int] = field(default_factory=dict)
    overrides: dict[Place, str] = field(default_factory=dict)
    """Values that the command line sets instead, as the user typed them."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with the file itself, e.g. a key that appears twice; reported together with all the rest."""
    moved: dict[Place, Place] = field(default_factory=dict)
    """The place of each phase in the file, by its place among the unrolled phases."""
    folder: str = ""
    """The folder of the file, as the user wrote it; empty for where the process is."""
    notes: list[str] = field(default_factory=list)
    """Notes about values that are allowed but may be a mistake; printed once."""

    def where(self, path: Sequence[str | int]) -> str:
        """`line 24: ` of the value, or of the nearest value around it; the `key=value` of the override that set it."""
        place = self.moved.get(tuple(path[:2]), tuple(path[:2])) + tuple(path[2:])
        while place and place not in self.lines:
            said = next((text for key, text in self.overrides.items() if key[: len(place)] == place), None)
            if said is not None:
                return f"{shorten(said)}: "
            place = place[:-1]
        return f"line {self.lines[place]}: " if place else ""


class Loader(yaml.SafeLoader):
    """Safe loading with numbers and words as YAML 1.2 defines them."""


Loader.yaml_implicit_resolvers = {}

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
    Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), [*_first.replace("\0", ""), ""])

Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(str(node.value)))


def read(path: Path) -> Document:
    """One experiment file. Raises ExperimentError with the line for everything that is not a plain mapping."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ExperimentError(f"{path} is not a regular file", "name a .yaml file")
        size = path.stat().st_size
        if size > MOST_BYTES and path.is_file():
            raise ExperimentError(
                f"{path} has {size} bytes; an experiment has at most {MOST_BYTES}", "check that it is the right file"
            )
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ExperimentError(
            f"there is no experiment file {path}", "check the path; examples/ has experiments to start from"
        ) from None
    except IsADirectoryError:
        raise ExperimentError(f"{path} is a folder, not an experiment file", "name the .yaml file in it") from None
    except OSError as err:
        raise ExperimentError(f"{path} cannot be read: {err.strerror}", "check its permissions") from None
    except ValueError as err:
        raise ExperimentError(f"{shorten(path)} is not a file name: {err}", "name the .yaml file") from None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as err:
        line = raw[: err.start].count(b"\n") + 1
        raise ExperimentError(f"{path} line {line}: not UTF-8 at byte {err.start}", "save it as UTF-8") from None
    document = parse(text, str(path))
    document.folder = _shortly(path.parent)
    return document


def _shortly(folder: Path) -> str:
    """A folder as a path from where the process is, if it is there or below; empty if it is the same."""
    here, there = os.path.abspath(os.curdir), os.path.abspath(folder)
    if there == here:
        return ""
    return os.path.relpath(there) if os.path.commonpath([here, there]) == here else str(folder)


def parse(text: str, name: str) -> Document:
    lines: dict[Place, int] = {}
    problems: list[str] = []
    loader = None
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise ExperimentError(f"{name} is empty", "an experiment is a mapping with name, model and phases")
        values = build(loader, node, (), lines, problems, [0], ())
    except TooMuch as err:
        raise ExperimentError(f"{name} line {err.line}: {err.what}", err.hint) from None
    except yaml.composer.ComposerError as err:
        mark = err.problem_mark
        many = "single document" in str(err)
        what = "holds more than one YAML document" if many else str(err.problem)
        raise ExperimentError(
            f"{name} line {mark.line + 1 if mark else '?'}: {shorten(what, 120)}",
            "keep one mapping per file" if many else "an *alias refers to a value marked above it with the same &name",
        ) from None
    except yaml.reader.ReaderError as err:
        at = err.position if isinstance(err.position, int) else 0
        raise ExperimentError(
            f"{name} line {text.count(chr(10), 0, at) + 1}: the character #x{ord(text[at]):02x} is not allowed in YAML",
            "remove it",
        ) from None
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        what = getattr(err, "problem", None) or str(err).splitlines()[0]
        line = f" line {mark.line + 1}" if mark else ""
        raise ExperimentError(
            f"{name}{line}: not YAML: {shorten(what, 120)}", "check indentation, colons and quotes there"
        ) from None
    except RecursionError:
        raise ExperimentError(
            f"{name} is nested too deeply", f"an experiment is at most {MOST_DEPTH} levels deep"
        ) from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(values, dict):
        if problems:
            raise ExperimentError(f"1 problem in {name}", "", problems[:1])
        kind = {"list": "a list", "str": "text", "NoneType": "nothing", "int": "a number", "float": "a number"}.get(
            type(values).__name__, a(type(values).__name__)
        )
        raise ExperimentError(
            f"{name} line {lines[()]}: the file holds {kind}, not a mapping", "an experiment starts with `name: …`"
        )
    return Document(name, values, lines, problems=problems)


class TooMuch(Exception):
    def __init__(self, line: int, what: str, hint: str) -> None:
        self.line, self.what, self.hint = line, what, hint


def build(
    loader: Loader,
    node: yaml.Node,
    path: Place,
    lines: dict[Place, int],
    problems: list[str],
    seen: list[int],
    parents: tuple[int, ...],
) -> Any:
    seen[0] += 1
    line = node.start_mark.line + 1
    if id(node) in parents:
        raise TooMuch(line, "an alias contains itself", "write the value out")
    if seen[0] > MOST_NODES or len(path) > MOST_DEPTH:
        raise TooMuch(
            line,
            f"more than {MOST_NODES} values or {MOST_DEPTH} levels",
            "write fewer; an alias repeats all of its values",
        )
    lines[path] = line
    inside = (*parents, id(node))
    if node.tag not in PLAIN:
        problems.append(
            f"line {line}: the tag {shorten(node.tag)} is not supported; an experiment holds plain values only"
        )
        return None
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
                problems.append(f"line {at}: '{shorten(key)}' appears here and on line {first[key]}; keep one")
                continue
            first[key] = at
            values[key] = build(loader, value_node, (*path, key), lines, problems, seen, inside)
            lines[(*path, key)] = at
        return values
    if isinstance(node, yaml.SequenceNode):
        return [build(loader, n, (*path, i), lines, problems, seen, inside) for i, n in enumerate(node.value)]
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError):
        problems.append(f"line {line}: '{shorten(node.value, 40)}' is not a valid {node.tag.rpartition(':')[2]}")
        return None
