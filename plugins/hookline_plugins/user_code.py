"""Code of the user's: a function or class of a file, imported, and its errors with the user's own frames alone."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from hookline import ExperimentError, PluginError

HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def load(path: str, name: str) -> Callable[..., Any]:
    """The function of that name; of a class, an instance. Raises PluginError or ExperimentError, naming file and function."""
    module = module_of(path)
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ExperimentError(f"{path} has no function '{name}'{_others(module, name)}", "name one of the file's functions") from None
    if hasattr(found, "__registry_info__") and not _required(found):
        found = _instance(found, path, name)  # a scorer of inspect_ai: the decorated function makes the one that scores
    if isinstance(found, type):
        _refuse_components(found, path, name)
        _refuse_environments(found, path, name)
        found = _instance(found, path, name)
    if not callable(found):
        what = f"is {_a(type(found).__name__)}" if not isinstance(found, ModuleType) else "is a module"
        raise ExperimentError(f"'{name}' of {path} {what}, which cannot be called", f"name a function{_others(module, name)}")
    return found  # type: ignore[no-any-return]


def module_of(path: str) -> ModuleType:
    """The file as a module. The same file is imported once; other contents are another module."""
    file = Path(path)
    if not file.is_file():
        raise ExperimentError(f"there is no file {path}", "name a Python file, relative to the experiment's file")
    name = f"hookline_function_{file.stem}_{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as err:
        del sys.modules[name]
        hint = "fix the file"
        if isinstance(err, ModuleNotFoundError) and err.name and (file.parent / f"{err.name.partition('.')[0]}.py").is_file():
            hint = (
                f"only {file.name} is copied into the run: put what it needs into this one file, or make "
                f"{err.name}.py importable (pip install -e, or PYTHONPATH={file.parent})"
            )
        raise PluginError(f"{path} could not be imported: {said(err, path)}", hint) from trimmed(err)
    return module


def place_of(function: Callable[..., Any], path: str) -> str:
    """FILE:LINE of a function, of an object's class, or of what a decorator wraps."""
    inner = inspect.unwrap(function)
    inner = getattr(inner, "func", inner)  # functools.partial
    for one in (inner, type(inner)):
        try:
            return f"{inspect.getsourcefile(one)}:{inspect.getsourcelines(one)[1]}"
        except (OSError, TypeError):
            continue
    return path


def trimmed(err: BaseException) -> BaseException:
    """The exception without the frames that lead from Hookline to the user's code."""
    trace = err.__traceback__
    while trace is not None and _ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return err.with_traceback(trace)


def frames(err: BaseException) -> str:
    """The user's frames as text."""
    return "".join(traceback.format_list(traceback.extract_tb(trimmed(err).__traceback__)[-4:]))


def said(err: BaseException, path: str) -> str:
    """An exception in a sentence, with the line of the user's file: `KeyError: 'answer' (rewards.py line 7)`."""
    if isinstance(err, SyntaxError) and err.lineno:
        return f"SyntaxError: {err.msg} (line {err.lineno})"
    text = "it calls sys.exit" if isinstance(err, SystemExit) else f"{type(err).__name__}: {_text(err)}".removesuffix(": ")
    own = [one for one in traceback.extract_tb(err.__traceback__) if os.path.basename(one.filename) == os.path.basename(path)]
    return f"{text} ({os.path.basename(path)} line {own[-1].lineno})" if own else text


def _text(err: BaseException) -> str:
    try:
        return str(err)
    except Exception:  # the exception's own __str__ fails
        return ""


def _ours(filename: str) -> bool:
    import asyncio

    homes = (HERE, os.path.dirname(str(asyncio.__file__)) + os.sep, os.path.dirname(str(importlib.__file__)) + os.sep)
    return filename.startswith((*homes, "<frozen"))


def _instance(cls: Callable[[], Any], path: str, name: str) -> Any:
    try:
        inspect.signature(cls).bind()
    except TypeError as err:
        needs = f"a class that {str(err).replace('missing a required argument', 'needs the argument')}"
        hint = f"give the arguments defaults, or write an instance into the file: my_{name.lower()} = {name}(…), and name that"
        raise ExperimentError(f"'{name}' of {path} is {needs}", hint) from None
    except ValueError:
        pass  # its signature is not known; it is tried
    try:
        return cls()
    except (Exception, SystemExit) as err:
        raise PluginError(f"{path}: {name}() failed: {said(err, path)}", "fix its constructor") from trimmed(err)


def _refuse_components(cls: type, path: str, name: str) -> None:
    from hookline import Component

    if issubclass(cls, Component):
        hint = f"make it available with -p {path} and use its name: hookline plugins show {name.lower()} -p {path}"
        raise ExperimentError(f"'{name}' of {path} is a component, not a function", hint)


def _refuse_environments(cls: type, path: str, name: str) -> None:
    if any("__call__" in vars(one) for one in cls.__mro__):
        return
    for method, owner in (("get_reward", "TRL"), ("step", "OpenRLHF or Gymnasium")):
        if callable(getattr(cls, method, None)):
            text = f"'{name}' of {path} is an environment ({owner}), whose `{method}` belongs to an episode that it plays itself"
            play = f"play it: rollout: {{use: turns, environment: {{use: {owner.split()[-1].lower()}, path: {path}, make: {name}}}}}"
            hint = f"{play} (docs/environments.md), or judge the answer: def mine(completion, answer): …"
            raise ExperimentError(text, hint)


def _required(function: Any) -> list[str]:
    """The parameters without a default."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [one.name for one in found if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]


def _others(module: ModuleType, name: str) -> str:
    """The functions that the file has instead, the nearest first."""
    own = [
        key
        for key, value in vars(module).items()
        if callable(value) and not key.startswith("_") and getattr(value, "__module__", module.__name__) == module.__name__
    ]
    if close := get_close_matches(name, own, n=1):
        return f"; did you mean '{close[0]}'?"
    return f"; it has {', '.join(own[:8])}" if own else "; it has none"


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"
