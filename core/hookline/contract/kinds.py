"""The table of kinds. A kind of component is one row here, a base class in this room, and components that derive from it.

All code that depends on kinds reads this table: what is offered, which class a component derives from, what a phase may
name, what `explain` prints, what `plugins new` writes and what `plugins check` tests. Third parties offer components of
a kind; only Hookline defines kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from hookline.contract.component import Component

__all__ = ["KINDS", "Kind", "kind_of_base", "of_phase", "taught"]

Scope = Literal["phase", "experiment", "data name", "command line", "component"]


@dataclass(frozen=True)
class Kind:
    """What all components of one kind have in common."""

    name: str
    """Its entry point group is `hookline.NAME`."""
    means: str
    """What a component of this kind does, in a few words."""
    scope: Scope
    """Where its components are named: in a phase, in the experiment, in a data name, on the command line, or only in
    the config of another component."""
    section: str = ""
    """The key under which a phase or the experiment names it."""
    base_names: tuple[str, ...] = ("hookline.contract.component:Component",)
    """`module:Class` of the base classes of its components, as text, so that this table imports no heavy modules."""
    hook: str = ""
    """The hook that its components answer; empty for kinds whose base class declares the methods."""
    also: tuple[str, ...] = ()
    """Hooks that its components may answer in addition to `hook`."""
    many: bool = False
    """Whether a phase or the experiment may name several components of this kind."""
    required: bool = False
    """Whether every phase must name a component of this kind."""
    wrapped_by: str = ""
    """The hook that wrappers wrap to change the answers of this kind."""
    wraps: bool = False
    """Whether its components may wrap hooks, with methods of their own or of their base class."""
    verb: str = "answers"
    """The verb that `explain` prints for its components."""
    default: str = ""
    """The component that is used if none is named."""
    laws: tuple[str, ...] = ()
    """The groups of laws that `plugins check` tests, in addition to those of every component; `loop` if the component
    needs a phase to run in. `plugins check` and `plugins new` do not support kinds without laws."""
    template: str = ""
    """The name in `plugins new --kind`, if it differs from `name`; `templates/` may have a file of that name."""

    @property
    def group(self) -> str:
        """The entry point group."""
        return f"hookline.{self.name}"

    @property
    def asked(self) -> str:
        """The name of the kind in `plugins new --kind`."""
        return self.template or self.name

    @property
    def typed(self) -> bool:
        """Whether its components are recognised by their base class; otherwise by the hook that they answer."""
        return self.base_names != Kind.base_names

    @property
    def in_loop(self) -> bool:
        """Whether its components answer or wrap hooks of the loop."""
        return self.scope == "phase" and bool(self.hook or self.wraps)

    @property
    def around(self) -> bool:
        """Whether its components only wrap hooks that others answer."""
        return self.wraps and not self.hook

    def bases(self) -> tuple[type[Component], ...]:
        """The classes that components of this kind derive from; imports them."""
        found: list[Any] = []
        for name in self.base_names:
            module, _, attribute = name.partition(":")
            found.append(getattr(import_module(module), attribute))
        return cast("tuple[type[Component], ...]", tuple(found))


_CONTRACT = "hookline.contract"
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("rollout", "brings experience: sampled, or read from data", "phase", "rollout",
             hook="hookline_rollout", required=True, wrapped_by="hookline_rollout", wraps=True,
             laws=("loop", "rollout")),
        Kind("reward", "judges every row", "phase", "reward",
             hook="hookline_reward", many=True, wrapped_by="hookline_score", laws=("loop", "reward")),
        Kind("wrapper", "wraps a hook and changes or watches its answer", "phase", "wrap",
             many=True, wraps=True, verb="wraps", laws=("loop", "wrapper")),
        Kind("advantage", "turns rewards into credit per token", "phase", "advantage",
             hook="hookline_advantage", wrapped_by="hookline_advantage", wraps=True, laws=("loop", "advantage")),
        Kind("update", "changes the weights", "phase", "update",
             hook="hookline_update", also=("hookline_advantage",), wrapped_by="hookline_update", wraps=True,
             laws=("loop", "update"), template="algorithm"),
        Kind("feedback", "compares or ranks rows, as an annotator would", "phase", "feedback",
             hook="hookline_judge", many=True, wraps=True, verb="judges", laws=("loop", "feedback")),
        Kind("engine", "draws answers from a model", "phase", "engine",
             base_names=(f"{_CONTRACT}.engine:Engine",), verb="draws", default="local", laws=("engine",)),
        Kind("environment", "plays a text episode, turn by turn", "component",
             base_names=(f"{_CONTRACT}.environment:Environment",), verb="plays", laws=("environment",)),
        Kind("model", "builds, reads, adapts or runs a network", "experiment", "model",
             base_names=tuple(f"{_CONTRACT}.{name}" for name in
                              ("model:Architecture", "model:Head", "model:Adapter", "family:Family"))),
        Kind("task", "a source of rows that needs no file", "data name",
             base_names=(f"{_CONTRACT}.task:Task",), laws=("task",)),
        Kind("format", "reads rows from a kind of file", "data name",
             base_names=(f"{_CONTRACT}.format:Format",), laws=("format",)),
        Kind("store", "keeps items to be judged and the events that answer them", "data name",
             base_names=(f"{_CONTRACT}.store:Store",), laws=("store",)),
        Kind("tracker", "is told what a run does", "experiment", "trackers",
             hook="hookline_run_started", many=True, laws=("tracker",)),
        Kind("command", "a verb of the command line", "command line",
             base_names=(f"{_CONTRACT}.command:Command",), laws=("command",)),
    )
}  # fmt: skip
"""Every kind, by name."""


def of_phase() -> tuple[Kind, ...]:
    """The kinds that a phase names, in the order in which the loop uses them."""
    return tuple(kind for kind in KINDS.values() if kind.scope == "phase")


def taught() -> tuple[Kind, ...]:
    """The kinds that `plugins new` writes and `plugins check` tests."""
    return tuple(kind for kind in KINDS.values() if kind.laws)


def kind_of_base(cls: type) -> str:
    """The kind whose base class a class is or derives from; empty for kinds that are recognised by a hook."""
    return next((kind.name for kind in KINDS.values() if kind.typed and issubclass(cls, kind.bases())), "")
