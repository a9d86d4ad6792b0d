"""Components of kind `command` on the command line: listed from metadata, loaded when called, options from their Config."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hookline.cli.out import Printer
from hookline.errors import ExperimentError, HooklineError, PluginError, cause, shorten
from hookline.registry import offers
from hookline.registry.offers import Offer
from hookline.storage.paths import expanded

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from hookline.contract.command import Command

__all__ = ["listed", "named", "program_of"]


def listed(loose: tuple[Offer, ...] = ()) -> Iterator[tuple[str, str]]:
    """(name, one line) of every command. Imports none: built-in ones are read as text, others show their distribution."""
    for offer in offers.offers(loose):
        if offer.kind == "command":
            whose = f"{offer.distribution} {offer.version}"
            line = _first_line(offer) if offer.built_in else f"offered by {whose}"
            yield offer.name, f"cannot be used, {whose}: {offer.problem}" if offer.problem else line


def _first_line(offer: Offer) -> str:
    """The first line of a class's docstring, read from its source."""
    module, _, name = offer.target.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def named(name: str, loose: tuple[Offer, ...] = ()) -> Offer | None:
    """The offer that `hookline NAME`, or `hookline DISTRIBUTION:NAME`, means; None if no distribution offers it.

    Raises PluginError if the command cannot be used, or if several distributions offer it.
    """
    distribution, _, short = name.rpartition(":")
    found = [offer for offer in offers.offers(loose) if offer.kind == "command" and offer.name == short]
    usable = [offer for offer in found if not offer.problem]
    if len(usable) > 1 and not distribution and not any(offer.path for offer in usable):
        choices = " or ".join(f"hookline {offer.distribution}:{short}" for offer in usable)
        raise PluginError(f"command '{short}' is offered by {len(usable)} distributions", f"say which: {choices}")
    return offers.find("command", name, loose) if found else None


def program_of(offer: Offer) -> tuple[str, Callable[..., int]]:
    """(help, a function whose signature typer turns into arguments and options) of one command, which is imported.

    Raises a PluginError that names the distribution if the command cannot be imported or breaks the contract.
    """
    import typer

    from hookline.contract.check import check_class
    from hookline.contract.component import docstring_of
    from hookline.registry.construct import construct

    cls: Any = check_class(offer.load(), "command", str(offer))
    _check_run(cls, str(offer))
    fields = {name: Field(name, info, str(offer)) for name, info in cls.Config.model_fields.items()}
    _check(fields.values(), cls, str(offer))
    parameters = [field.parameter() for field in sorted(fields.values(), key=lambda field: not field.positional)]
    if cls.has_json:
        flag = typing.Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
        parameters.append(inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, annotation=flag, default=False))

    def program(**given: Any) -> int:
        out = Printer(bool(given.pop("json", False)), str(offer))
        values = {field.key: field.read(given[name]) for name, field in fields.items() if given[name] is not None}
        command: Any = construct(cls, _config(cls, values, fields, offer.name), str(offer))
        command.instance = offer.name
        return _answer(command, out, offer)

    program.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    program.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return docstring_of(cls), program


def _answer(command: Command, out: Printer, offer: Offer) -> int:
    """Run a command; returns its exit code. An error from a third party's command names its distribution."""
    try:
        with contextlib.redirect_stdout(sys.stderr) if out.json else contextlib.nullcontext():
            try:
                code = command.run(out)
            finally:
                command.close()
    except (HooklineError, KeyboardInterrupt):
        raise
    except SystemExit as err:
        said = f"{offer} calls sys.exit({'' if err.code is None else shorten(repr(err.code))})"
        raise PluginError(said, "end its run() with: return 0, or raise a HooklineError") from err
    except BaseException as err:
        if offer.built_in or (isinstance(err, BrokenPipeError) and out.unread()):
            raise
        raise PluginError(
            f"{offer} failed: {cause(err)}", offer.repair if offer.path else f"report it to its authors, or: {offer.repair}"
        ) from err
    if isinstance(code, bool) or not isinstance(code, int) or not 0 <= code <= 255:
        raise PluginError(
            f"{offer} returned {shorten(repr(code))}, not an exit code", "end its run() with: return 0 (0 to 255)"
        )
    if out.json and code == 0 and out.values != 1:
        raise PluginError(f"{offer} gave {out.values} JSON values under --json instead of one", "call out.value once")
    return code


class Field:
    """One field of a command's Config, as an argument or an option."""

    def __init__(self, name: str, info: FieldInfo, who: str) -> None:
        from hookline.contract.command import Argument

        self.name, self.info, self.key = name, info, info.alias or name
        self.mark = next((mark for mark in info.metadata if isinstance(mark, Argument)), None)
        self.positional = self.mark is not None
        self.type = _bare(info.annotation)
        origin = typing.get_origin(self.type)
        self.many = origin in (list, tuple, set, frozenset)
        item = _bare(typing.get_args(self.type)[0]) if self.many and typing.get_args(self.type) else self.type
        self.choices = typing.get_args(item) if typing.get_origin(item) is Literal else ()
        if not (self.choices or item in (str, int, float, bool, Path) or item is Any):
            raise PluginError(
                f"{who}: its option '{self.key}' has the type {shorten(getattr(item, '__name__', item))}, which a command line cannot give",
                "use text, a number, true or false, a path, a Literal, or a list of these",
            )
        self.path = item is Path
        self.flag = item is bool and not self.many and not self.positional
        self.word = "|".join(map(str, self.choices)) if self.choices else str(getattr(item, "__name__", "text"))

    @property
    def shown(self) -> str:
        """The field as the user types it: `--keep-best`, or `RUN`."""
        if self.mark is not None:
            return self.mark.metavar or self.name.upper()
        return f"--{self.key.replace('_', '-')}"

    def parameter(self) -> inspect.Parameter:
        """The parameter that typer reads. All values are text or flags; pydantic parses and validates them."""
        import typer

        required = self.info.is_required()
        default: Any = None if required else self.info.get_default(call_default_factory=True)
        if self.many:
            default = [str(item) for item in default] if default else None
        elif not self.flag and default is not None:
            default = str(default)
        help = " ".join((self.info.description or "").split()) + _bounds(self.info)
        kind: Any = bool if self.flag else list[str] if self.many else str
        annotation = kind if required else kind | None
        if self.positional:
            about = typer.Argument(help=help, metavar=self.shown)
        elif self.flag:
            about = typer.Option(self.shown if default is False else f"{self.shown}/--no-{self.shown[2:]}", help=help)
        else:
            about = typer.Option(self.shown, help=help, metavar=f"<{self.word}>")
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=typing.Annotated[annotation, about],
            default=inspect.Parameter.empty if required else default,
        )

    def read(self, given: Any) -> Any:
        """The given value; a word that names a choice is replaced by that choice, and `~` by the home folder."""
        if self.path and given is not None:
            return [expanded(item) for item in given] if self.many else expanded(given)
        meant = {str(choice): choice for choice in self.choices}
        return [meant.get(item, item) for item in given] if self.many else meant.get(given, given)


def _bare(annotation: Any) -> Any:
    """A type without `Annotated` and `| None`."""
    while True:
        inner = typing.get_args(annotation)
        if hasattr(annotation, "__metadata__"):
            annotation = inner[0]
        elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
            others = [part for part in inner if part is not type(None)]
            if len(others) != 1:
                return annotation
            annotation = others[0]
        else:
            return annotation


def _bounds(info: FieldInfo) -> str:
    """`  [>=1]`, if the field has bounds."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    told = [
        f"{sign}{getattr(mark, name)}" for mark in info.metadata for name, sign in signs.items() if hasattr(mark, name)
    ]
    return f"  [{', '.join(told)}]" if told else ""


def _check(fields: typing.Iterable[Field], cls: type[Command], who: str) -> None:
    """Refuse positional arguments that cannot be told apart, and options that Hookline adds itself."""
    positional = [field for field in fields if field.positional]
    early = next((field for field in positional[:-1] if field.many or not field.info.is_required()), None)
    if early:
        what = "takes several values" if early.many else "may be left out"
        raise PluginError(
            f"{who}: its argument {early.shown} {what} and is not the last one", "make it the last, or an option"
        )
    taken = {"--help": "help", **({"--json": "has_json"} if cls.has_json else {})}
    own = next((field for field in fields if field.shown in taken), None)
    if own:
        raise PluginError(f"{who}: its option {own.shown} is reserved: Hookline adds it itself", "rename the field")


def _check_run(cls: type[Command], who: str) -> None:
    """Refuse a class whose `run` is a generator or does not take `out` alone; `check_class` has refused the rest."""
    hint = "write: def run(self, out): …; return 0"
    if inspect.isgeneratorfunction(cls.run):
        raise PluginError(f"{who}: its method `run` is a generator", hint)
    try:
        inspect.signature(cls.run).bind(None, None)
    except TypeError:
        raise PluginError(f"{who}: its method `run` must take `out` as its only argument", hint) from None


def _config(cls: type[Command], values: dict[str, Any], fields: dict[str, Field], name: str) -> Any:
    """The validated options. Raises ExperimentError with one sentence for each wrong option."""
    from pydantic import ValidationError

    from hookline.config.problems import problems_of
    from hookline.config.yaml import Document
    from hookline.registry.construct import configure

    words = {field.key: field.shown for field in fields.values()}

    def shown(path: Sequence[str | int]) -> str:
        return words.get(str(path[0]), str(path[0])) if path else f"hookline {name}"

    try:
        return configure(cls, values, f"command '{name}'")
    except ValidationError as err:
        found = err.errors(include_url=False)
        by_key = {field.key: field for field in fields.values()}
        field = by_key.get(str(found[0]["loc"][0])) if found[0]["loc"] else None
        if len(found) == 1 and field and field.choices:
            choices = [str(choice) for choice in field.choices]
            listed = " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)
            raise ExperimentError(f"{field.shown} is '{shorten(found[0]['input'])}'", f"choose {listed}") from None
        problems = problems_of(err, Document("the command line", values), cls.Config, shown=shown)
        hint = f"hookline {name} --help"
        if len(problems) == 1:
            raise ExperimentError(problems[0], hint) from None
        raise ExperimentError(
            f"{len(problems)} problems on the command line of hookline {name}", hint, problems
        ) from None
