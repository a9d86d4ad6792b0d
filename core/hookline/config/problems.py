"""The problems of an experiment file, as sentences with line and hint."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic.fields import FieldInfo

from hookline.config.yaml import Document
from hookline.errors import alike, shorten
from hookline.synonyms import suggestion

__all__ = ["count", "in_order", "problems_of", "same_of"]

UNNAMED = {"evaluate": "heldout"}
"""The name of a list item that has no name of its own, by the key of the list."""
VERBS = re.compile(r"(must|has|is|are|says|names|needs|wants|takes|gives|does|cannot|neither)\b")
"""A validator's message that starts with one of these takes the path as its subject; any other is a whole sentence."""


def in_order(problems: Sequence[str]) -> list[str]:
    """The problems without duplicates, those without a line first."""

    def line(problem: str) -> int:
        found = re.match(r"line (\d+): ", problem)
        return int(found[1]) if found else 0

    first: dict[str, str] = {}
    for problem in problems:
        first.setdefault(same_of(problem), problem)
    return sorted(first.values(), key=line)


def same_of(problem: str) -> str:
    """The text that a problem shares with the same problem in other rounds, whose phases have other numbers."""
    return re.sub(r"@\d+", "", problem).partition(";")[0] if "@" in problem else problem


def count(problems: Sequence[str]) -> str:
    return f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"


def problems_of(
    err: ValidationError,
    document: Document,
    model: type[BaseModel],
    at: Sequence[str | int] = (),
    shown: Callable[[Sequence[str | int]], str] | None = None,
) -> list[str]:
    """pydantic's findings as sentences with line, the user's own words, and the nearest valid name.

    shown: how a path is written; default: its parts joined by dots, items of lists by their own name.
    """
    shown = shown or partial(_shown, document)
    found = []
    everything = err.errors(include_url=False)
    for problem in everything:
        inside = [p for p in everything if p is not problem and p["loc"][: len(problem["loc"])] == problem["loc"]]
        if problem["type"] == "too_short" and inside:  # pydantic counts only the items that are right
            continue
        # a component's options are kept under `options`, which the user's file does not have, unless as a wrong key
        named = len(problem["loc"]) - 1 if problem["type"] == "extra_forbidden" else -1
        loc = [part for i, part in enumerate(problem["loc"]) if part != "options" or i == named]
        path = [*at, *loc]
        name = shown(path)
        value = problem["input"]
        got = shorten(repr(value))
        kind = problem["type"]
        context = problem.get("ctx", {})
        if kind == "extra_forbidden":
            owns = _model_at(model, loc[:-1])
            known = {field.alias or name: field for name, field in owns.model_fields.items()} if owns else {}
            owner = shown(path[:-1]) or "an experiment"
            word = str(loc[-1])
            meant = suggestion(word, known, _fitting(word, known, value), getattr(owns, "synonyms", {}))
            has = f"; it has: {', '.join(sorted(known))}" if known else ""
            text = f"{owner} has no option '{shorten(word)}'{meant or has}"
        elif kind == "missing":
            text = f"{name} is missing"
        elif kind == "value_error":
            said = shorten(context.get("error", problem["msg"]), 300)
            text = f"{name or 'the experiment'}{'' if VERBS.match(said) else ':'} {said}"
        elif kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"):
            bound = next(iter(context.values()), None)
            sign = {"greater_than": "above", "greater_than_equal": "at least", "less_than": "below"}.get(
                kind, "at most"
            )
            wants = "must be finite" if kind == "finite_number" else f"must be {sign} {bound}"
            text = f"{name} is {got}; it {wants}"
        elif kind.startswith(("string_type", "bool", "int", "float")):
            wanted = {"s": "text", "b": "true or false", "i": "a whole number", "f": "a number"}[kind[0]]
            quote = " (quote it)" if kind == "string_type" and isinstance(value, int | float) else ""
            text = f"{name} must be {wanted}, not {got}{quote}"
        elif kind == "string_pattern_mismatch":
            text = f"{name} is {got}; use letters, digits, '.', '_' and '-', and start with a letter or digit"
        elif kind in ("model_type", "model_attributes_type", "dict_type", "mapping_type"):
            text = f"{name or 'the experiment'} must be a mapping of options, not {got}"
        elif kind in ("tuple_type", "list_type"):
            text = f"{name} must be a list, not {got}"
        elif kind == "too_short":
            text = f"{name} is empty; it must have at least {context.get('min_length', 1)}"
        else:
            text = f"{name} is {got}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
        found.append(document.where(path) + text)
    return found


def _shown(document: Document, path: Sequence[str | int]) -> str:
    """A path in the user's words: items of lists by their own name."""
    words: list[str] = []
    place: Any = document.values
    key: str | int = ""
    for part in path:
        if part == 0 and isinstance(place, str | Mapping):  # one item without a list around it
            place = [place]
        if isinstance(place, list) and isinstance(part, int) and part < len(place):
            place = place[part]
            words.append(shorten(label_of(place, str(key)) or f"[{part}]", 40))
        else:
            place = place.get(str(part)) if isinstance(place, Mapping) else None
            words.append(shorten(part, 40))
            key = part
    return ".".join(words)


def label_of(item: Any, key: str) -> str:
    """The label of an item of the list under `key`: its `name`, or the component's; empty if it has neither."""
    said = (item.get("name") or item.get("use")) if isinstance(item, Mapping) else item
    if isinstance(said, str) and said:
        return said.rpartition(":")[2]
    return UNNAMED.get(key, "") if isinstance(item, Mapping) else ""


def _fitting(word: str, fields: Mapping[str, FieldInfo], value: Any) -> list[str]:
    """The fields with a name close to a word that can hold a value; a mapping may fit once its own options are right."""
    return [name for name in alike(word, fields) if isinstance(value, Mapping) or _fits(fields[name], value)]


def _fits(field: FieldInfo, value: Any) -> bool:
    annotation: Any = field.annotation
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return False
    except PydanticSchemaGenerationError:
        return True
    return True


def _model_at(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel] | None:
    """The model whose fields are at a location; None if there is none."""
    current: Any = model
    key = False
    for part in loc:
        if isinstance(part, int) or key:  # an item of a list, or the user's own name of an entry
            key = False
            continue
        fields = current.model_fields if isinstance(current, type) and issubclass(current, BaseModel) else {}
        field = fields.get(part) or next((f for f in fields.values() if f.alias == part), None)
        if field is None:
            return None
        current, key = _model_in(field.annotation), get_origin(field.annotation) is dict
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
