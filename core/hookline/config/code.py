"""The source of a function or class that was defined in a notebook or a script, with everything that it needs to run alone."""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import linecache
import sys
import textwrap
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import Any

from hookline.errors import ExperimentError, a

__all__ = ["file_of", "source_of"]

HEAD = "from __future__ import annotations\n"


def file_of(made: FunctionType | type) -> str:
    """The module's file that defines a function or class; empty for what a cell, a script or another function defines.

    Raises ExperimentError for a lambda.
    """
    if made.__name__ == "<lambda>":
        raise ExperimentError("a lambda has no name and no source of its own", "write `def correct(…): return …`, and give correct")
    module = sys.modules.get(made.__module__)
    file = getattr(module, "__file__", None) or ""
    alone = made.__module__ == "__main__" or "<locals>" in made.__qualname__
    return "" if alone or not file.endswith(".py") else file


def source_of(made: FunctionType | type) -> str:
    """The text of a module with a function or class and what it reads from around it: imports, constants, other functions.

    Raises ExperimentError for code whose source is not known, and for a variable that cannot be written down.
    """
    imports: dict[str, str] = {}
    bodies: dict[str, str] = {}
    _gather(made, made.__name__, imports, bodies)
    return "\n".join([HEAD, *sorted(set(imports.values())), "\n", *bodies.values()])


def _gather(made: FunctionType | type, owner: str, imports: dict[str, str], bodies: dict[str, str]) -> None:
    if made.__name__ in bodies:
        return
    bodies[made.__name__] = ""  # it may read itself
    text = _text(made)
    around = _around(made)
    for name in _names(text):
        if name == made.__name__ or name not in around or name in imports or name in bodies:
            continue
        _write(name, around[name], owner, imports, bodies)
    del bodies[made.__name__]  # after what it reads
    bodies[made.__name__] = f"{text}\n"


def _write(name: str, value: Any, owner: str, imports: dict[str, str], bodies: dict[str, str]) -> None:
    """One variable that a function reads: as an import, as source, or as a constant."""
    if isinstance(value, ModuleType):
        imports[name] = f"import {value.__name__} as {name}" if value.__name__ != name else f"import {name}"
        return
    home, own = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if isinstance(value, FunctionType | type) and (home == "__main__" or "<locals>" in own):
        _gather(value, owner, imports, bodies)
        if value.__name__ != name:
            bodies[name] = f"{name} = {value.__name__}\n"
        return
    if home and own and getattr(sys.modules.get(home), own, None) is value:
        imports[name] = f"from {home} import {own} as {name}" if own != name else f"from {home} import {name}"
        return
    try:
        same = json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError, RecursionError):
        same = isinstance(value, set | frozenset | tuple) and _literal(value)
    if not same or not _literal(value):
        raise ExperimentError(
            f"{owner} reads the variable '{name}', which is {a(type(value).__name__)} and cannot be recorded with its source",
            f"make it inside {owner}, or put the code into a file: FILE.py:{owner}",
        )
    bodies[name] = f"{name} = {value!r}\n"


def _literal(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False


def _text(made: FunctionType | type) -> str:
    """The source of a definition, without what is around it."""
    code = next((one.__code__ for one in (made, *vars(made).values()) if isinstance(one, FunctionType)), None)
    lines = linecache.getlines(code.co_filename) if code else []
    try:
        text = "".join(lines) if lines else inspect.getsource(made)
        found = [
            node
            for node in ast.walk(ast.parse(textwrap.dedent(text)))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == made.__name__
        ]
    except (OSError, TypeError, SyntaxError):
        found = []
    if not found:
        raise ExperimentError(f"the source of {made.__name__} is not known", "define it in a cell or a file, not with exec")
    line = code.co_firstlineno if code else 0
    best = min(found, key=lambda node: (not node.lineno - len(node.decorator_list) <= line <= (node.end_lineno or 0), -node.lineno))
    first = min([best.lineno, *(one.lineno for one in best.decorator_list)])
    return textwrap.dedent("".join(textwrap.dedent(text).splitlines(keepends=True)[first - 1 : best.end_lineno])).rstrip("\n")


def _names(text: str) -> list[str]:
    """The names that a definition reads."""
    found = [node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name) and not hasattr(builtins, node.id)]
    return list(dict.fromkeys(found))


def _around(made: FunctionType | type) -> Mapping[str, Any]:
    """The variables around a definition, by name."""
    functions = [one for one in (made, *vars(made).values()) if isinstance(one, FunctionType)]
    found = dict(vars(sys.modules[made.__module__])) if made.__module__ in sys.modules else {}
    for one in functions:
        found |= one.__globals__
    for one in functions:
        for name, cell in zip(one.__code__.co_freevars, one.__closure__ or ()):
            try:
                found[name] = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
    return found
