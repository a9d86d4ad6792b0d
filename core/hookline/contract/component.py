"""The base class of all components, which plugin authors derive from."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self

from pydantic import BaseModel
from typing_extensions import TypeVar

from hookline.batch.stages import Advantaged, Batch, Record, Scored, Term
from hookline.contract.fields import Config
from hookline.contract.hookspecs import HOOK_API
from hookline.contract.metrics import Better, Metric
from hookline.errors import PluginError

if TYPE_CHECKING:
    import torch

    from hookline.contract.context import Context
    from hookline.contract.encoder import Encoder
else:
    from hookline.batch.lazily import torch

__all__ = ["Component", "ConfigT", "docstring_of"]

ConfigT = TypeVar("ConfigT", bound=BaseModel, default=Any)
"""The class of a component's options, in `Component[MyConfig]`."""


class Component(Generic[ConfigT]):
    """Something that an experiment can name. It takes a config, keeps state, and answers hooks in `@hookimpl` methods.

    Declare its options as a class `Config` inside it, or write `class Mine(Component[MyConfig])`, so that type checkers
    know the type of `self.config`. The constructor takes the config and must not open anything; open files and
    connections in `setup(ctx)`.
    """

    Config: ClassVar[type[Config]] = Config
    """The class of the component's options."""
    name: ClassVar[str] = ""
    """Only for loose files: the name under which experiments use the component (default: the file's name)."""
    hook_api: ClassVar[str] = HOOK_API
    """The version of the hook contract that the class was written for; another major or a newer minor is refused."""
    # Each of the following is a plain class attribute, `needs = {"groups"}`, or a property that reads `self.config`.
    if TYPE_CHECKING:

        @property
        def needs(self) -> Collection[str]:
            """What the component requires: `groups`, `pairs`, `behaviour`, `critic`, or a column such as `value_BT`.

            If the config names another phase in a `PhaseName` field, two needs refer to that phase: `head:NAME`, a head
            which that phase trains (without such a field: this phase), and `feedback`, which that phase collected.
            `engine:ABILITY` is required of the phase's engine, e.g. `engine:combine`.
            """

        @property
        def gives(self) -> Collection[str]:
            """What the component adds, e.g. a column such as `value_BT`; `role:NAME` for a role that it makes."""

        @property
        def claims(self) -> Collection[str]:
            """Tasks that only one component of a phase may do, e.g. `kl`: penalise the distance from the reference."""

        @property
        def metrics(self) -> Sequence[Metric]:
            """The figures that the component logs."""

        @property
        def better(self) -> Better:
            """Rewards only: whether higher or lower values of the reward's figure are better, e.g. "lower" for a
            perplexity; None if neither is. Only the wording of `hookline compare` depends on this."""

        @property
        def code_line(self) -> str:
            """FILE:LINE of the code that answers, for a component that calls code of the user's; empty: its class."""

        @property
        def code_call(self) -> str:
            """How that code is called, in a few words for `explain`, e.g. `once per batch`; empty: nothing is said."""

    else:
        needs = gives = claims = frozenset()
        metrics = ()
        better = None
        code_line = code_call = ""
    promises: Collection[str] = frozenset()
    """Laws of `hookline.testing` that the component promises in addition to those of its kind, e.g. `reinforce`."""
    exempt: Mapping[str, str] = {}
    """Laws of `hookline.testing` that cannot hold for the component, each with the reason."""
    positions: int = 0
    """Rollouts only: the minimum number of positions that a model must have, e.g. for a prompt and `max_new_tokens`."""
    takes: ClassVar[type[Batch]] = Advantaged
    """Updates: the earliest stage that the update can learn from: `Batch`, `Scored` or `Advantaged`. Feedback: `Rollout` for one that
    reads no rewards, which is then asked in phases without any."""
    off_policy: ClassVar[bool] = False
    """Updates only: true if rows sampled by older weights are allowed."""

    sharded: ClassVar[Collection[str]] = frozenset()
    """With several processes, the state is the same on all, except for the keys of `state_dict` that are named here: each
    holds a dict by group id, as text, of which a rank has the groups that it drew."""

    def __init__(self, config: ConfigT) -> None:
        self.config: ConfigT = config
        """The component's options, validated."""
        self.instance: str = ""
        """The name under which the experiment uses the component; empty until the constructor has returned."""
        self.parts: Mapping[str, Component] = {}
        """The components that the config names in fields of type `Use[…]`, by field; `FIELD/0`, `FIELD/1`, … if a field
        names several. They are set up before this component and closed after it."""

    def read_row(self, ctx: Encoder, record: Record, where: str) -> object:
        """Rollouts that read a dataset: one row of it, as `setup` reads every row; by default nothing is read.

        `hookline explain` and the start of a run call this for the first rows of the data that the config names, so that a
        file that `setup` would refuse is refused before a weight is loaded. It must use `self.config` and `ctx` alone.
        where: the row's position, for error messages. Returns None for a row that `setup` leaves out, and raises DataError for
        one that it refuses; data whose first rows are all left out is refused, too.
        """
        return None

    def one_pass(self, ctx: Encoder, records: Sequence[Record]) -> tuple[int, int] | None:
        """Rollouts that read a dataset: how many rows one pass over it has, and how many of these a step takes.

        For a phase that says `epochs` instead of `steps`. records: all rows of the data name in the config, those that `setup` will
        leave out included. None, as by default, for a rollout without passes; such a phase is then refused. It must use
        `self.config`, `ctx` and `records` alone.
        """
        return None

    def reads_row(self, record: Record) -> bool:
        """Rollouts that read a dataset: whether a row of it is read, e.g. by a split of its own; by default every row is.

        A run compares the prompts of an evaluation with those of the training by it. It must use `self.config` and `record` alone.
        """
        return True

    def check_row(self, record: Record, where: str) -> None:
        """Rewards and sources of feedback: check that a row of the rollout has the columns that they read; by default nothing.

        Like `read_row`, it is called for the first rows before a weight is loaded. Raises DataError.
        """

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Set `Config` from `Component[MyConfig]`; a class `Config` in the body takes precedence."""
        super().__init_subclass__(**keywords)
        if "Config" not in vars(cls):
            for base in vars(cls).get("__orig_bases__", ()):
                for said in typing.get_args(base):
                    if isinstance(said, type) and issubclass(said, BaseModel):
                        cls.Config = said  # type: ignore[assignment]

    def another(self) -> Self:
        """Make a second component with the same config and its own parts. The caller sets it up and closes it."""
        made = type(self)(self.config)
        made.instance = self.instance
        made.parts = {key: part.another() for key, part in self.parts.items()}
        return made

    def setup(self, ctx: Context) -> None:
        """Make roles, heads and targets, and open files, connections and threads.

        Called once per phase, before any state is loaded. Do not open anything in the constructor: components are also
        constructed only to read what they need.
        """

    def close(self) -> Awaitable[None] | None:
        """Close what `setup` opened: files, connections, threads. May be an `async def`.

        Called when the phase ends, when it fails and when the run is asked to stop, in the reverse order of `setup`. It
        is also called after a setup that failed half-way, and may be called twice. All components of a phase together
        have ten seconds. An exception here becomes a notice and does not prevent other components from closing.
        Trackers are closed after `hookline_run_finished`.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return everything that must survive a kill: tensors, numbers, text, and lists and dicts of these."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned; called after `setup`. By default, raises PluginError if there is state."""
        if state:
            raise PluginError(f"'{self.instance}' saved state but does not load it", "define load_state_dict")

    def summarise(self, term: Term, scored: Scored) -> float:
        """Rewards only: return one figure for the rows of an evaluation; by default the mean over judged rows, as the
        term's `weight_B` and `summary` say.

        `scored.terms` has every reward of the evaluation, by name.
        Called for all rows, for each row alone, whose figure is kept in evaluations.jsonl, and without each prompt's rows.
        """
        value_B = term.value if term.value.dim() == 1 else term.value.sum(1)
        ok_B = torch.ones(len(value_B), dtype=torch.bool) if term.ok_B is None else term.ok_B
        value_B, weight_B = value_B[ok_B].double(), None if term.weight_B is None else term.weight_B[ok_B].double()
        if not len(value_B):
            return math.nan
        shown_B = value_B.log() if term.summary == "perplexity" else value_B
        mean = float(shown_B.mean() if weight_B is None else (shown_B * weight_B).sum() / weight_B.sum())
        return mean if term.summary == "mean" else math.exp(mean) if mean < 700 else math.inf

    def held_out(self, ctx: Context, batch: Batch) -> Mapping[str, Term]:
        """Updates only: the method's own figures of rows that it does not learn from, by name, each with a value per row.

        Asked in an evaluation that names no reward, with `batch` at the stage that `takes` names: rows that were read have
        the rewards that were recorded. `return ctx.measure(batch, loss)` gives the training loss, and everything
        that it logs. The names are `loss` and those that the component declares in `metrics`. By default there are none.
        """
        return {}


def docstring_of(cls: type[Component]) -> str:
    """The docstring of a class, or of its first base class outside Hookline that has one; empty if there is none."""
    for base in cls.__mro__:
        own = base is cls or not base.__module__.startswith("hookline.")
        if own and issubclass(base, Component) and (text := vars(base).get("__doc__")):
            return inspect.cleandoc(text).strip()
    return ""
