"""An experiment as Python objects becomes one of plain values: rows, functions and classes are held as files, under a name.

The name has a hash of the contents, `@memory/correct-1a2b3c4d.py`, so that an experiment file, a run and a resumed run say which
rows and which code they mean. A run has a copy of each.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

from pydantic import BaseModel

from hookline.config import yaml
from hookline.config.code import file_of, source_of
from hookline.contract.fields import Config
from hookline.errors import DataError, ExperimentError, a
from hookline.registry import offers
from hookline.storage.paths import hold

__all__ = ["plain", "reference", "use"]

MOST_BYTES = 1 << 29
"""The most that rows in memory may take as JSON lines."""
READS = ("prompts", "path", "on")
"""The keys under which a list of mappings is rows."""


def use(component: str | type | Callable[..., Any], config: BaseModel | None = None, /, **options: Any) -> dict[str, Any]:
    """A component with its options, as a phase names it: `use("gae", lam=0.9)`, `use(GRPO, lr=1e-5)`, `use(correct, weight=2)`.

    component: the name of an installed component, a component's class, or a function. config: the options as an object of the
    class's own `Config`, which an editor completes: `use(GRPO, GRPO.Config(lr=1e-5))`. options: its options by name, and `name` and
    `weight` as in an experiment file.
    """
    given = config.model_dump(exclude_unset=True, by_alias=True) if config is not None else {}
    return {"use": component, **given, **options}


def plain(value: Any) -> dict[str, Any]:
    """The plain values of an experiment that may hold rows, functions, and classes of components.

    Raises ExperimentError and DataError for an object that cannot be recorded.
    """
    plugins: list[str] = []
    found: dict[str, Any] = _plain(value, plugins, ())
    if plugins:
        own = found.get("plugins") or []
        found["plugins"] = list(dict.fromkeys([*([own] if isinstance(own, str) else own), *plugins]))
    return found


def reference(plugin: str | type) -> str:
    """What `plugins=[…]` names: a class becomes the file with its source; everything else is unchanged."""
    return _file(plugin) if isinstance(plugin, type) else plugin


def _plain(value: Any, plugins: list[str], at: tuple[str, ...]) -> Any:
    if len(at) > yaml.MOST_DEPTH:
        raise ExperimentError("the experiment is nested too deeply", f"at most {yaml.MOST_DEPTH} levels")
    key = next((part for part in reversed(at) if part), "")
    if isinstance(value, type | FunctionType) or (callable(value) and not isinstance(value, BaseModel)):
        if key == "plugins":
            return reference(value) if isinstance(value, type) else value
        return _used({"use": value}, plugins)
    if isinstance(value, Config):
        owner = type(value).__qualname__.rpartition(".")[0] or "CLASS"
        what = f"{key}: options of {owner} do not say which component has them"
        raise ExperimentError(what, f"write hookline.use(CLASS, {owner}.Config(…)) with the component's class")
    if isinstance(value, Mapping):
        if isinstance(value.get("use"), type | FunctionType):
            value = _used(value, plugins)
        # YAML 1.1, which other readers use, reads the key `on` as true
        keys = {one: "on" if one is True else str(one) for one in value}
        return {keys[one]: _plain(item, plugins, (*at, keys[one])) for one, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    rows = _rows(value, key in READS or at[:-1] == ("data",))
    if rows is not None:
        return _held(rows, key)
    return [_plain(item, plugins, (*at, "")) for item in value] if isinstance(value, list | tuple) else value


def _rows(value: Any, named: bool) -> Iterable[Any] | None:
    """The rows of a table, or of a list where data is named; None for all other values."""
    if isinstance(value, list | tuple):
        whole = all(isinstance(row, Mapping) and not row.keys() & {"path", "use"} for row in value)
        return value if named and value and whole else None
    kind = type(value).__module__.partition(".")[0]
    if kind == "pandas" and hasattr(value, "columns"):
        return json.loads(value.to_json(orient="records", force_ascii=False, date_format="iso"))  # type: ignore[no-any-return]
    if kind == "pyarrow" and hasattr(value, "to_pylist"):
        return value.to_pylist()  # type: ignore[no-any-return]
    return value if kind == "datasets" and hasattr(value, "column_names") else None


def _held(rows: Iterable[Any], key: str) -> str:
    """Rows as a file of JSON lines; its name, by its contents."""
    lines, size = [], 0
    for number, row in enumerate(rows, 1):
        try:
            lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False))
        except (TypeError, ValueError) as err:
            raise DataError(f"row {number} of {key} cannot be written as JSON: {err}", "give text, numbers, lists and dicts") from None
        size += len(lines[-1])
        if size > MOST_BYTES:
            raise DataError(f"the rows of {key} take more than {MOST_BYTES >> 20} MiB", "write them into a file, and give its path")
    text = "".join(f"{line}\n" for line in lines)
    if not text:
        raise DataError(f"the rows of {key} are empty", "give it at least one row")
    return hold(_name("rows", text, ".jsonl"), text)


def _name(stem: str, text: str, suffix: str) -> str:
    return f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}{suffix}"


def _used(value: Mapping[str, Any], plugins: list[str]) -> dict[str, Any]:
    """A use whose component is a function or a class, by name."""
    made = value["use"]
    if not isinstance(made, type | FunctionType):
        what = "a functools.partial" if isinstance(made, functools.partial) else a(type(made).__name__)
        raise ExperimentError(f"{what} cannot be recorded with its source", "give a function that is written with def")
    if isinstance(made, FunctionType) or not _is_component(made):
        name = {} if value.get("name") else {"name": made.__name__.lstrip("_")}
        path, function = _file(made), made.__qualname__ if file_of(made) else made.__name__
        return {**value, **name, "use": "function", "path": path, "function": function}
    target = f"{made.__module__}:{made.__qualname__}"
    offered = next((offer.name for offer in offers.offers() if offer.target == target), None)
    if offered is None:
        path = _file(made)
        found = offers.loose(path)
        offered = next(offer.name for offer in found if offer.target.endswith(f":{made.__name__}"))
        plugins.append(path)
    return {**value, "use": offered}


def _is_component(made: type) -> bool:
    from hookline.contract.component import Component

    return issubclass(made, Component)


def _file(made: Any) -> str:
    """The file with the source of a function or class: its module's own, or one that is held."""
    if own := file_of(made):
        return own
    text = source_of(made)
    if isinstance(made, type) and _is_component(made) and not getattr(made, "name", ""):
        called = re.sub(r"(?<!^)(?=[A-Z])", "-", made.__name__).lower().replace("_", "-")
        text += f'\n{made.__name__}.name = "{called}"\n'
    return hold(_name(made.__name__, text, ".py"), text)
