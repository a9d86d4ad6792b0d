"""The table of kinds. A kind of component is one row here, a base class in this room, and components that derive from it.

Everything that speaks of kinds reads this table: what is on offer, what a class must be, what a phase may name, what
`explain` prints, what `plugins new` writes and what `plugins check` asks. Third parties offer components of a kind; kinds
themselves are Hookline's own.
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
    """Where it is named: in a phase, in the experiment, as (part of) the name of data, on the command line, or only in
    the config of another component."""
    section: str = ""
    """The key under which a phase or the experiment names it."""
    base_names: tuple[str, ...] = ("hookline.contract.component:Component",)
    """`module:Class` of what its components derive from; by name, since reading this table imports nothing heavy."""
    hook: str = ""
    """The hook that it answers; kinds without one are called by their base class's methods."""
    also: tuple[str, ...] = ()
    """Hooks that it may answer besides its own."""
    many: bool = False
    """Whether a phase, or the experiment, may name several."""
    required: bool = False
    """Whether every phase names one."""
    wrapped_by: str = ""
    """The hook that wrappers wrap when this kind answers."""
    wraps: bool = False
    """Whether its components may wrap hooks, by methods of their own or of their base class."""
    verb: str = "answers"
    """The verb that `explain` prints for it."""
    default: str = ""
    """The component that answers where none is named."""
    laws: tuple[str, ...] = ()
    """The groups of laws that `plugins check` asks of it, besides those of every component; `loop`: it needs a phase
    around it. A kind without laws is neither checked nor written by `plugins new`."""
    template: str = ""
    """What `plugins new --kind` calls it, where it is not the kind's own name; `templates/` may have a file of that name."""

    @property
    def group(self) -> str:
        """The group of entry points."""
        return f"hookline.{self.name}"

    @property
    def asked(self) -> str:
        """What `plugins new --kind` calls it."""
        return self.template or self.name

    @property
    def typed(self) -> bool:
        """Whether it is known by its base classes; else by the hook it answers."""
        return self.base_names != Kind.base_names

    @property
    def in_loop(self) -> bool:
        """Whether its components answer hooks of the loop, or wrap them."""
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
        Kind("tracker", "is told what a run does", "experiment", "trackers",
             hook="hookline_run_started", many=True, laws=("tracker",)),
        Kind("command", "a verb of the command line", "command line",
             base_names=(f"{_CONTRACT}.command:Command",), laws=("command",)),
    )
}  # fmt: skip
"""Every kind, by name."""


def of_phase() -> tuple[Kind, ...]:
    """The kinds that a phase names, in the order in which the loop meets them."""
    return tuple(kind for kind in KINDS.values() if kind.scope == "phase")


def taught() -> tuple[Kind, ...]:
    """The kinds that `plugins new` writes and `plugins check` judges."""
    return tuple(kind for kind in KINDS.values() if kind.laws)


def kind_of_base(cls: type) -> str:
    """The kind whose base class a class is or derives from; empty for kinds that are known by a hook."""
    return next((kind.name for kind in KINDS.values() if kind.typed and issubclass(cls, kind.bases())), "")
