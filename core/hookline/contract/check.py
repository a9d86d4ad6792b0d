"""Checks that a class follows the contract, before any model loads."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from hookline.batch.stages import Batch
from hookline.contract.component import Component
from hookline.contract.engine import Engine
from hookline.contract.fields import Config
from hookline.contract.hookspecs import HOOK_API, StageSpecs, TrackerSpecs
from hookline.contract.kinds import KINDS, kind_of_base
from hookline.contract.metrics import Metric
from hookline.errors import PluginError, a, nearest

__all__ = ["KIND_OF_HOOK", "check_class", "hook_methods", "kind_of"]

SPECS: dict[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(spec).parameters)[1:]
    for specs in (StageSpecs, TrackerSpecs)
    for name, spec in vars(specs).items()
    if name.startswith("hookline_")
}
WRAPPABLE = {kind.wrapped_by for kind in KINDS.values() if kind.wrapped_by}
KIND_OF_HOOK = {
    **{name: "tracker" for name in vars(TrackerSpecs) if name in SPECS},
    **{kind.hook: kind.name for kind in KINDS.values() if kind.hook},
}
"""Hook → the kind of component that answers it."""


def hook_methods(cls: type[Component]) -> dict[str, dict[str, Any]]:
    """Hook name → pluggy's options, for each `@hookimpl` method of a class."""
    methods = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
    found = {name: getattr(value, "hookline_impl", None) for name, value in sorted(methods.items())}
    return {name: options for name, options in found.items() if isinstance(options, dict)}


def kind_of(cls: type[Component]) -> str:
    """The kind of a class, from the hooks that it answers or the base class that it derives from.

    A hook that does not exist counts as the one with the most similar name, so that the misspelt name is what is reported.
    """
    if based := kind_of_base(cls):
        return based
    hooks = hook_methods(cls)
    answers = [name for name, options in hooks.items() if not options.get("wrapper")]
    meant = (name for word in answers if word not in SPECS for name in get_close_matches(word, KIND_OF_HOOK, n=1))
    found = [KIND_OF_HOOK[name] for name in (*answers, *meant) if name in KIND_OF_HOOK]
    told = [kind for kind in found if KINDS[kind].scope != "phase"]
    more = [kind for kind in found if set(answers) & set(KINDS[kind].also)]
    return next(iter([*told, *more, *found]), "wrapper" if hooks else "")


def check_class(cls: Any, kind: str, who: str) -> type[Component]:
    """Refuse a class that breaks the contract, in one sentence that names the plugin. Runs before any model loads."""
    hint = f"see hookline.contract.hookspecs, or: hookline plugins show {who.split(chr(39))[1] if chr(39) in who else ''}".rstrip()
    if not (isinstance(cls, type) and issubclass(cls, Component)):
        raise PluginError(f"{who} is {_what(cls)}, not a class derived from hookline.Component", hint)
    _check_api(cls, who)
    if not (isinstance(cls.Config, type) and issubclass(cls.Config, Config)):
        raise PluginError(
            f"{who}: its Config is not derived from hookline.Config", "write: class Config(hookline.Config)"
        )
    try:
        inspect.signature(cls).bind(None)
    except TypeError:
        raise PluginError(
            f"{who}: its __init__ does not take the config alone",
            "write: def __init__(self, config): super().__init__(config)",
        ) from None
    for name in ("needs", "gives", "claims", "metrics"):
        value = inspect.getattr_static(cls, name)
        wanted = Metric if name == "metrics" else str
        plain = isinstance(value, Collection) and not isinstance(value, str)
        if not isinstance(value, property) and not (plain and all(isinstance(item, wanted) for item in value)):
            raise PluginError(
                f"{who}: {name} is {_shown(value)}", f"write a set or tuple of {wanted.__name__}, even for one item"
            )
    if not (isinstance(cls.takes, type) and issubclass(cls.takes, Batch)):
        raise PluginError(f"{who}: takes is {_shown(cls.takes)}", "name a stage: Batch, Rollout, Scored or Advantaged")
    for name, form in (("exempt", Mapping), ("promises", Collection)):
        value = getattr(cls, name)
        if not isinstance(value, form) or isinstance(value, str):
            what = "a dict of law: reason" if name == "exempt" else "a set of names of laws"
            raise PluginError(f"{who}: {name} is {_shown(value)}", f"write {what}")
    for name in dir(cls):
        if not name.startswith("hookline_"):
            continue
        if name not in SPECS:
            raise PluginError(f"{who} implements unknown hook '{name}'{nearest(name, SPECS)}", hint)
        method = inspect.getattr_static(cls, name)
        options = getattr(method, "hookline_impl", None)
        if options is None:
            raise PluginError(f"{who} defines {name} without @hookimpl, so it would never be called", "add @hookimpl")
        _check_signature(method, name, bool(options.get("wrapper")), who)
    _check_kind(cls, kind, who, hint)
    if kind == "format":
        _check_suffixes(cls, who)
    _check_methods(cls, who)
    return cls


def _check_kind(cls: type[Component], kind: str, who: str, hint: str) -> None:
    """Refuse a class that does not answer the hook of its kind, or answers the hook of another kind."""
    about = KINDS[kind]
    hooks = hook_methods(cls)
    wraps = [name for name, options in hooks.items() if options.get("wrapper")]
    answers = [name for name in hooks if name not in wraps]
    if kind == "wrapper" and not wraps:
        raise PluginError(f"{who} wraps no hook", "mark a generator method with @hookimpl(wrapper=True)")
    if about.typed and not issubclass(cls, about.bases()):
        bases = " or ".join(f"hookline.{base.__name__}" for base in about.bases())
        raise PluginError(
            f"{who} is offered as {kind} but is not derived from {bases}", f"derive {cls.__name__} from it"
        )
    if kind_of(cls) != kind and not (about.wraps and (about.hook in answers or not about.hook)):
        what = about.hook if about.scope == "phase" else "a hook of that kind"
        raise PluginError(f"{who} is offered as {kind} but does not answer {what}", hint)
    apart = "move that method to a separate class"
    for name in answers:
        if name == "hookline_score":
            raise PluginError(
                f"{who} answers hookline_score, which only the core answers", "wrap it: @hookimpl(wrapper=True)"
            )
        if KIND_OF_HOOK[name] != kind and name not in about.also:
            raise PluginError(f"{who} also answers {name}, which components of kind {kind} cannot answer", apart)
    if wraps and not about.wraps:
        raise PluginError(
            f"{who} wraps {wraps[0]}, but components of kind {kind} cannot wrap it", f"{apart} and name it under `wrap`"
        )


def _check_suffixes(cls: type[Component], who: str) -> None:
    """Refuse a format whose `suffixes` are not a set or tuple of texts that each begin with a dot."""
    value = inspect.getattr_static(cls, "suffixes")
    plain = isinstance(value, Collection) and not isinstance(value, str)
    if not (plain and all(isinstance(item, str) and re.fullmatch(r"\.[^/\s]+", item) for item in value)):
        raise PluginError(f"{who}: suffixes is {value!r:.60}", 'write a tuple like (".csv", ".tar.gz"), even for one')


def _check_methods(cls: type[Component], who: str) -> None:
    """Refuse a class that lacks a method of its base class, or has `def` where the base has `async def`, or reverse."""
    contract = [base for base in cls.__mro__ if base.__module__.startswith("hookline.contract.")]
    for name, ours in {name: f for base in reversed(contract) for name, f in vars(base).items()}.items():
        said = inspect.getattr_static(cls, name)
        if not inspect.isfunction(ours) or name.startswith("_") or not inspect.isfunction(said):
            continue
        late = inspect.iscoroutinefunction(ours)
        hint = f"write: {'async ' if late else ''}def {name}({', '.join(inspect.signature(ours).parameters)})"
        if getattr(said, "__isabstractmethod__", False):
            raise PluginError(f"{who} has no method {name}", hint)
        if name != "close" and late != inspect.iscoroutinefunction(said):
            raise PluginError(f"{who}: {name} is {'a plain def, not async' if late else 'async'}", hint)
    gives = inspect.getattr_static(cls, "gives")
    if issubclass(cls, Engine) and not isinstance(gives, property) and "score" in gives and cls.score is Engine.score:
        raise PluginError(f"{who} gives 'score' and has no method score", "define it, or remove 'score' from gives")


def _shown(value: object) -> str:
    """A plugin's value as part of a message, also where its own __repr__ fails."""
    try:
        return f"{value!r:.60}"
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"


def _what(thing: Any) -> str:
    if isinstance(thing, Component):
        return f"an instance of {type(thing).__name__}"
    return f"the class {thing.__name__}" if isinstance(thing, type) else a(type(thing).__name__)


def _check_api(cls: type[Component], who: str) -> None:
    try:
        major, minor = (int(part) for part in str(cls.hook_api).split(".")[:2])
    except ValueError:
        raise PluginError(
            f"{who} has hook_api = {cls.hook_api!r}, which is not a version", f'write it like "{HOOK_API}"'
        ) from None
    ours = tuple(int(part) for part in HOOK_API.split("."))
    if major != ours[0] or minor > ours[1]:
        newer = (major, minor) > ours
        hint = "upgrade hookline" if newer else "upgrade the plugin"
        raise PluginError(f"{who} is written for hook API {cls.hook_api}, this Hookline has {HOOK_API}", hint)


def _check_signature(method: Any, name: str, wrapper: bool, who: str) -> None:
    known = SPECS[name]
    hint = f"write def {name}(self, {', '.join(known)}), or only some of these arguments"
    parameters = list(inspect.signature(method).parameters.values())[1:]
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise PluginError(f"{who}: {name} takes *{parameter.name}, so it does not name its arguments", hint)
        if parameter.name not in known:
            raise PluginError(
                f"{who}: {name} takes '{parameter.name}', which is not an argument of that hook"
                f"{nearest(parameter.name, known)}",
                hint,
            )
        if parameter.default is not parameter.empty:
            raise PluginError(
                f"{who}: {name} gives '{parameter.name}' a default, which would replace the hook's value", hint
            )
    if wrapper and name not in WRAPPABLE:
        raise PluginError(f"{who} wraps {name}, which cannot be wrapped", f"wrap {', '.join(sorted(WRAPPABLE))}")
    if wrapper and not inspect.isgeneratorfunction(method):
        raise PluginError(f"{who}: {name} is a wrapper but never yields", "write: result = yield; …; return result")
    if not wrapper and (inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method)):
        raise PluginError(
            f"{who}: {name} yields but is not marked as a wrapper", "mark it @hookimpl(wrapper=True), or return a value"
        )
    if inspect.iscoroutinefunction(method) and name != "hookline_reward":
        raise PluginError(f"{who}: {name} is async; only hookline_reward may be async", "write a plain def")
