"""The offers: which distribution offers which components, read from metadata without importing anything.

A distribution offers a component by one entry point in the group of its kind, e.g. `hookline.advantage`. Built-in
components are offered by a table of the same form in their own package, so that an editable install is never outdated.
"""

from __future__ import annotations

import configparser
import hashlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from hookline._version import __version__
from hookline.contract.kinds import KINDS
from hookline.errors import ExperimentError, HooklineError, PluginError, cause, nearest
from hookline.storage.paths import beside

__all__ = ["BUILT_IN", "VERBS", "Offer", "available", "by_name", "find", "is_loose", "loose", "loose_of", "offers", "unreadable"]

BUILT_IN = "hookline_plugins"
VERBS = ("run", "explain", "doctor", "plugins")
"""Commands that the core defines itself, since it is unusable without them."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
NO_NAME = "a name has lower-case letters, digits, '.', '_' and '-', at most 64 characters"


@dataclass(frozen=True)
class Offer:
    """One component that can be named in an experiment."""

    kind: str
    name: str
    target: str
    """`module:Class`"""
    distribution: str
    version: str
    problem: str = ""
    """Why this offer cannot be used, known from metadata alone."""
    built_in: bool = False
    path: str = ""
    """The file of a loose plugin, or of a function; empty for other offers."""
    function: bool = False
    """Whether the component calls a function of the file at `path`, which is then what the component does."""

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' ({self.distribution} {self.version})"

    @property
    def repair(self) -> str:
        """What a user can do about an error in the component's code."""
        return f"fix {self.path}" if self.path else f"pip install --upgrade {self.distribution}"

    def calling(self, path: str, name: str) -> Offer:
        """The offer of a component that calls a function of a file: named after the function, with the file's hash as version.

        Raises ExperimentError if there is no such file.
        """
        file = Path(path)
        if not file.is_file():
            there = [one.name for one in file.parent.glob("*.py")] if file.parent.is_dir() else []
            where = f"it has {', '.join(sorted(there)[:8])}" if there else "it has no .py file"
            raise ExperimentError(
                f"there is no file {path}{nearest(file.name, there)}", f"its folder is {file.parent.resolve()}; {where}"
            )
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        return replace(
            self, name=name, distribution=file.name, version=digest, built_in=False, path=path, function=True
        )

    def load(self) -> Any:
        """Import this component's class. An error names the distribution and keeps the plugin's own frames."""
        module, _, attribute = self.target.partition(":")
        hint = f"hookline plugins show {self.name}; or: {self.repair}"
        if self.path and not self.function:
            module, hint = _import_loose(Path(self.path)), self.repair
        try:
            loaded: Any = importlib.import_module(module)
        except (Exception, SystemExit) as err:
            raise PluginError(f"{self} could not be imported: {_why(err)}", hint) from err
        try:
            for part in attribute.split("."):
                loaded = getattr(loaded, part)
        except AttributeError as err:
            raise PluginError(f"{self} points at '{self.target}', but '{module}' has no '{attribute}'", hint) from err
        return loaded


def _import_loose(path: Path) -> str:
    path = path.resolve()
    name = f"hookline_loose_{path.stem}_{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as err:
            del sys.modules[name]
            raise PluginError(f"{path} could not be imported: {_why(err)}", "fix the file") from err
    return name


def _why(err: BaseException) -> str:
    return "it calls sys.exit" if isinstance(err, SystemExit) else cause(err)


@cache
def _installed() -> tuple[Offer, ...]:
    found = [*_built_in()]
    ours = frozenset((offer.kind, offer.name) for offer in found)
    seen: set[tuple[str, str, str]] = set()
    for distribution, version, points, problem in _distributions():
        if problem:
            found.append(Offer("unknown", distribution, "", distribution, version, problem))
        for point in points:
            kind = point.group.removeprefix("hookline.")
            if (kind, point.name, distribution) in seen:
                continue
            seen.add((kind, point.name, distribution))
            problem = ""
            if kind not in KINDS:
                problem = f"there is no kind '{kind}'{nearest(kind, KINDS)}"
            elif not NAME.fullmatch(point.name):
                problem = NO_NAME
            else:
                problem = _taken(kind, point.name, ours)
            found.append(Offer(kind, point.name, point.value, distribution, version, problem))
    return tuple(found)


def _distributions() -> Iterator[tuple[str, str, list[metadata.EntryPoint], str]]:
    """(name, version, our entry points, problem) of every installed distribution, the first on the path of each name.

    A distribution whose metadata cannot be read may be anybody's: it has a problem only if it names a group of ours.
    """
    seen: set[str] = set()
    for dist in metadata.distributions():
        text, label = "", Path(str(getattr(dist, "_path", ""))).stem
        try:
            text = dist.read_text("entry_points.txt") or ""
            if "hookline." not in text:
                continue
            points = [point for point in dist.entry_points if point.group.startswith("hookline.")]
            if points and _normal(dist.name) not in seen:
                seen.add(_normal(dist.name))
                yield dist.name, str(dist.version), points, ""
        except Exception as err:
            name, _, version = label.partition("-")
            if "hookline" in text + label and _normal(name) not in seen:
                seen.add(_normal(name))
                why = cause(err) if isinstance(err, OSError | ValueError) else "METADATA is missing or has no Name"
                yield name.replace("_", "-"), version or "?", [], f"its metadata cannot be read: {why}"


def unreadable() -> PluginError | None:
    """An installed distribution whose entry points cannot be read, as an error; None if there is none.

    Other libraries read the entry points of all distributions while they are imported, and fail on such a one.
    """
    for dist in metadata.distributions():
        try:
            _ = dist.entry_points
        except Exception as err:
            path = getattr(dist, "_path", "unknown")
            return PluginError(f"{path}/entry_points.txt cannot be read: {cause(err)}", "reinstall that distribution")
    return None


def _taken(kind: str, name: str, built_in: frozenset[tuple[str, str]]) -> str:
    """Why a name cannot be offered: it is a built-in name or a verb; empty if the name is free."""
    if (kind, name) not in built_in and not (kind == "command" and name in VERBS):
        return ""
    return f"'{name}' is a built-in {kind}, and a plugin cannot use a built-in name; rename it"


def _built_in() -> Iterator[Offer]:
    spec = importlib.util.find_spec(BUILT_IN)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        table = configparser.ConfigParser(delimiters=("=",))
        table.read(Path(folder) / "entry_points.txt", encoding="utf-8")
        for group in table.sections():
            for name, target in table[group].items():
                yield Offer(group.removeprefix("hookline."), name, target, "hookline", __version__, built_in=True)


def offers(loose: tuple[Offer, ...] = ()) -> tuple[Offer, ...]:
    """All offers: built-in, installed, and those of the loose files made available with `-p`."""
    return (*_installed(), *loose)


def find(kind: str, name: str, loose: tuple[Offer, ...] = ()) -> Offer:
    """The one offer that `use: NAME` or `use: distribution:NAME` means.

    Raises PluginError if no distribution offers it, if several distributions do, or if the offer has a problem.
    """
    distribution, _, short = name.rpartition(":")
    named = [o for o in offers(loose) if o.kind == kind and o.name == short]
    if distribution:
        named = [o for o in named if _normal(o.distribution) == _normal(distribution)]
    usable = [o for o in named if not o.problem]
    taken = [o for o in named if o.problem and o.path]
    if taken:
        raise PluginError(f"{taken[0]}: {taken[0].problem}", f"rename {taken[0].path}, or set `name` in its class")
    own = [o for o in usable if o.path]
    if len(usable) == 1 or len(own) == 1:
        return (own or usable)[0]
    if len(usable) > 1:
        choices = " or ".join(f"'{o.distribution}:{o.name}'" for o in usable)
        raise PluginError(f"{kind} '{short}' is offered by {len(usable)} distributions", f"say which: use: {choices}")
    if named:
        raise PluginError(f"{named[0]} cannot be used: {named[0].problem}", f"pip uninstall {named[0].distribution}")
    known = sorted({o.name for o in offers(loose) if o.kind == kind and not o.problem})
    elsewhere = [o.kind for o in offers(loose) if o.name == short and o.kind != kind]
    closest = f"; '{short}' is offered as {elsewhere[0]}" if elsewhere else nearest(short, known)
    absent = distribution and not any(_normal(o.distribution) == _normal(distribution) for o in offers(loose))
    hint = f"install {distribution if absent else 'the distribution that offers it'}, if there is one"
    if absent and kind == "reward":
        hint = f"a function of a file is named FILE.py:NAME, e.g. {distribution}.py:{short}; or {hint}"
    raise PluginError(
        f"no {kind} '{name}' is installed{closest}",
        f"{hint}, give its file with -p, or name one offered here: {', '.join(known) or 'none'}",
    )


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def available(references: Sequence[str]) -> tuple[Offer, ...]:
    """All offers, with those of the loose files that `-p` names."""
    return offers(loose_of(references))


def loose_of(references: Sequence[str]) -> tuple[Offer, ...]:
    """The offers of the references that are loose files, each file once; other references are names of installed plugins."""
    files: dict[Path, str] = {}
    for reference in filter(is_loose, references):
        files.setdefault(Path(beside(reference)).resolve(), reference)
    return tuple(offer for reference in files.values() for offer in loose(reference))


def by_name(name: str, among: Sequence[Offer]) -> list[Offer]:
    """Offers of that name, of `DISTRIBUTION:NAME`, or of that distribution. Raises HooklineError if there are none."""
    distribution, _, short = name.rpartition(":")
    found = [o for o in among if o.name == short and (not distribution or o.distribution == distribution)]
    found = found or [o for o in among if o.distribution == name]
    if not found:
        names = sorted({o.name for o in among})
        raise HooklineError(f"no plugin '{name}' is installed{nearest(name, names)}", "hookline plugins list shows all")
    return found


def is_loose(reference: str) -> bool:
    """Whether `-p REFERENCE` names a file; otherwise the reference is the name of a plugin or a distribution."""
    return reference.endswith(".py") or "/" in reference


def loose(reference: str) -> tuple[Offer, ...]:
    """Make the components of a loose file available: `-p ./file.py`. The file is imported to find its components."""
    path = Path(beside(reference))
    if path.is_file() and path.suffix != ".py":
        raise PluginError(f"{reference} is not a Python file", "a loose plugin is a .py file")
    if not path.is_file():
        raise PluginError(
            f"there is no plugin file {reference}", "give the path of a Python file, or the name of an installed plugin"
        )
    module = sys.modules[_import_loose(path)]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    from hookline.contract.check import kind_of  # `plugins list` does without them
    from hookline.contract.component import Component

    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Component) and value.__module__ == module.__name__
    ]
    found = []
    for cls in classes:
        name = cls.name or (path.stem if len(classes) == 1 else re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__))
        name = name.lower().replace("_", "-")
        kind = kind_of(cls)
        if not kind:
            raise PluginError(
                f"{reference}: {cls.__name__} answers no hook",
                "mark a method such as hookline_advantage with @hookimpl, or derive from the base class of its kind",
            )
        problem = _taken(kind, name, frozenset((o.kind, o.name) for o in _installed() if o.built_in))
        if not problem and not NAME.fullmatch(name):
            problem = NO_NAME
        found.append(Offer(kind, name, f"{module.__name__}:{cls.__name__}", path.name, digest, problem, path=str(path)))
    if not found:
        functions = [name for name, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__]
        hint = f"; a reward function needs no -p: reward: {reference}:{functions[0]}" if functions else ""
        raise PluginError(f"{reference} defines no component", f"derive a class from hookline.Component{hint}")
    return tuple(found)
