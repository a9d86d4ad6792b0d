"""A component: what a plugin author derives from."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self

from pydantic import BaseModel
from typing_extensions import TypeVar

from hookline.batch.stages import Advantaged, Batch, Scored, Term
from hookline.contract.fields import Config
from hookline.contract.hookspecs import HOOK_API
from hookline.contract.metrics import Better, Metric
from hookline.errors import PluginError

if TYPE_CHECKING:
    from hookline.contract.context import Context

__all__ = ["Component", "ConfigT", "docstring_of"]

ConfigT = TypeVar("ConfigT", bound=BaseModel, default=Any)
"""The class of a component's options, in `Component[MyConfig]`."""


class Component(Generic[ConfigT]):
    """Something an experiment can name. Takes its config, keeps its own state, answers hooks with `@hookimpl` methods.

    Its options are a class `Config` within it, or `class Mine(Component[MyConfig])`, with which type checkers know what
    `self.config` holds. The constructor takes the config and opens nothing; `setup(ctx)` does.
    """

    Config: ClassVar[type[Config]] = Config
    """The class of its options."""
    name: ClassVar[str] = ""
    """Only for loose files: the name it is offered under (default: the file's name)."""
    hook_api: ClassVar[str] = HOOK_API
    """The version of the hook contract that it was written for; another major, or a newer minor, is refused."""
    # What follows is a plain value of the class, `needs = {"groups"}`, or a property that depends on `self.config`.
    if TYPE_CHECKING:

        @property
        def needs(self) -> Collection[str]:
            """What must be there: `groups`, `pairs`, `behaviour`, `critic`, or a column such as `value_BT`.

            Two are asked of the phase that the config names with a `PhaseName`, where it does: `head:NAME`, a head that
            phase trains (else this phase), and `feedback`, which it collected. `engine:ABILITY` is asked of the phase's
            engine, e.g. `engine:combine`.
            """

        @property
        def gives(self) -> Collection[str]:
            """What it adds; `role:NAME` for a role it makes."""

        @property
        def claims(self) -> Collection[str]:
            """What only one component of a phase may do, e.g. `kl`: to penalise the distance from the reference."""

        @property
        def metrics(self) -> Sequence[Metric]:
            """The figures it logs."""

        @property
        def better(self) -> Better:
            """Rewards only: whether the higher or the lower of two values of its figure is better, e.g. "lower" for a
            perplexity; None where that is a matter of taste. Words of `hookline compare` follow it, nothing else does."""

    else:
        needs = gives = claims = frozenset()
        metrics = ()
        better = None
    promises: Collection[str] = frozenset()
    """Laws of `hookline.testing` that it promises besides those of its kind, e.g. `reinforce`."""
    exempt: Mapping[str, str] = {}
    """Laws of `hookline.testing` that cannot hold for it, each with the reason."""
    positions: int = 0
    """Rollouts: the fewest positions that a model must have, e.g. for a prompt and `max_new_tokens`."""
    takes: ClassVar[type[Batch]] = Advantaged
    """Updates only: the least stage they can learn from, `Batch`, `Scored` or `Advantaged`."""
    off_policy: ClassVar[bool] = False
    """Updates only: true if rows sampled by older weights are allowed."""

    def __init__(self, config: ConfigT) -> None:
        self.config: ConfigT = config
        """Its options, validated."""
        self.instance: str = ""
        """The name under which the experiment uses it; empty while it is constructed."""
        self.parts: Mapping[str, Component] = {}
        """The components that its config names in fields of type `Use[…]`, by field; `FIELD/0`, … where it names several.
        They are set up before it and closed after it."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """`Component[MyConfig]` names the config's class; a class `Config` in the body takes precedence."""
        super().__init_subclass__(**keywords)
        if "Config" not in vars(cls):
            for base in vars(cls).get("__orig_bases__", ()):
                for said in typing.get_args(base):
                    if isinstance(said, type) and issubclass(said, BaseModel):
                        cls.Config = said  # type: ignore[assignment]

    def another(self) -> Self:
        """One more with the same config, and parts of its own, which the caller sets up and closes."""
        made = type(self)(self.config)
        made.instance = self.instance
        made.parts = {key: part.another() for key, part in self.parts.items()}
        return made

    def setup(self, ctx: Context) -> None:
        """Make roles, heads and targets, and open files, connections and threads.

        Called once per phase, before any state is loaded. A constructor opens nothing: components are also constructed to
        be asked what they need.
        """

    def close(self) -> Awaitable[None] | None:
        """Give back what `setup` opened: files, connections, threads. May be an `async def`.

        Called when the phase ends, when it fails and when the run is asked to stop, in the reverse order of `setup`; also
        after a setup that failed half-way, and sometimes twice. All components of a phase have ten seconds together. An
        exception here becomes a notice; it stops no other close. Trackers are closed after `hookline_run_finished`.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """Everything that must survive a kill: tensors, numbers, text, lists and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned, after `setup`. Raises PluginError where there is state and no such method."""
        if state:
            raise PluginError(f"'{self.instance}' saved state but does not load it", "define load_state_dict")

    def summarise(self, term: Term, scored: Scored) -> float:
        """Rewards only: one figure for an evaluation's rows; by default the mean over judged rows."""
        value_B = term.value if term.value.dim() == 1 else term.value.sum(1)
        if term.ok_B is not None:
            value_B = value_B[term.ok_B]
        return float(value_B.double().mean()) if len(value_B) else math.nan


def docstring_of(cls: type[Component]) -> str:
    """What a class says of itself, or the first class that it derives from and that is not Hookline's; empty where none does."""
    for base in cls.__mro__:
        own = base is cls or not base.__module__.startswith("hookline.")
        if own and issubclass(base, Component) and (text := vars(base).get("__doc__")):
            return inspect.cleandoc(text).strip()
    return ""
