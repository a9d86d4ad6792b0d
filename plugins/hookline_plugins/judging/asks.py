"""What components that ask a judge have in common: the judge's figures, connections and state are theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from hookline import Component, Context, Metric
from hookline_plugins.judging.judge import Judge
from hookline_plugins.judging.options import RatingOptions

OptionsT = TypeVar("OptionsT", bound=RatingOptions)


class Asks(Component[OptionsT]):
    """A component that asks a judge."""

    told = False
    """Whether a notice has said that something was not judged."""

    def __init__(self, config: OptionsT) -> None:
        super().__init__(config)
        self.judge = Judge(config, axes=config.axes, scale=config.scale, compares=config.compares)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What the judge cost, and how often it failed or disagreed with itself."""
        self.judge.check()  # so that a wrong template or a missing key is refused before the run starts
        return self.judge.metrics(self.instance)

    def setup(self, ctx: Context) -> None:
        self.judge.setup(ctx)

    def close(self) -> Awaitable[None]:
        return self.judge.close()

    def state_dict(self) -> dict[str, Any]:
        return self.judge.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.judge.load_state_dict(state)

    def tell(self, ctx: Context, what: str) -> None:
        """A notice of the first thing that was not judged; the figures count the others."""
        if not self.told:
            self.told = True
            ctx.run.notice(f"'{self.instance}' did not judge {what} are left out and counted")
