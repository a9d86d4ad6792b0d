"""What a component of kind `feedback` returns about rows of a batch; the core makes an `Event` of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hookline.contract.feedback import Comparison, Ranking

__all__ = ["Judgement"]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What an annotator said about rows of a batch that answer one prompt.

    `Judgement(ranking=(2, 0, 1), annotator="me")` is short for rows with a `Ranking` of them, best first.
    """

    annotator: str
    """The name of the person or the component that judged."""
    rows: tuple[int, ...] = ()
    """Row indices of the batch, in the order in which they were shown; each row appears once."""
    answer: Any = None
    """A `Comparison`, `Ranking`, `Rating`, …; it names the rows by their place in `rows`."""
    ranking: tuple[int, ...] = ()
    """Instead of `rows` and `answer`: row indices of the batch, best first; two rows are a comparison."""
    gold: tuple[float, ...] | None = None
    """The true rewards of the rows, in the order of `rows` or `ranking`, if the annotator is simulated and knows them."""
    role: Literal["person", "model", "simulated"] = "simulated"
    """What judged."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Anything else to store with the judgement, as JSON: confidence, seconds taken."""

    @property
    def judged(self) -> tuple[int, ...]:
        """The rows of the batch that were judged, whichever way they were given."""
        return self.rows or self.ranking

    @property
    def said(self) -> Any:
        """The answer about `judged`: of a `ranking`, two rows are a comparison, which the first wins."""
        if self.answer is not None or not self.ranking:
            return self.answer
        if len(self.ranking) == 2:
            return Comparison(better=0)
        return Ranking(order=tuple((i,) for i in range(len(self.ranking))))
