"""`hookline judge`: a language model answers what annotators are asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

import hookline
from hookline import Argument, Command, Out, StoreName
from hookline_plugins.commands.figures import plain
from hookline_plugins.judging.options import JudgeOptions, Reached


class JudgeItems(Command):
    """Ask a language model about the items of a store, beside people or in their place; comparisons are asked in both orders.

    What it says is stored as it comes, under the name `judge:MODEL`, and takes no place of an annotator. The same command goes on
    where it ended.
    """

    class Config(Reached):
        store: Annotated[StoreName, Argument("STORE")]
        """Where the items are: `sqlite:///eval.db` or `eval.jsonl`. Comparisons and ratings are judged, others are left out."""
        model: str = Field(min_length=1, max_length=150)
        """The model that judges, by the service's name for it."""
        temperature: float = Field(0.0, ge=0, le=2)
        """0 is the judge's most likely verdict."""
        max_tokens: int = Field(1024, ge=1)
        """Longest reply, in tokens. A reply that is cut off is not a verdict, so judges that think need more."""
        answers: int = Field(0, ge=0)
        """The number of items to judge now; 0: all."""

    def run(self, out: Out) -> int:
        from hookline_plugins.judging.items import judge_items

        c = self.config
        options = JudgeOptions(**c.model_dump(exclude={"store", "answers"}))
        with hookline.store(c.store, create=False) as store:
            said = judge_items(store, options, most=c.answers)
        disagreement, first = 1 - share(said.agreed), share(said.shown_first)
        out.value(
            {
                "annotator": said.annotator, "judged": said.judged, "failed": len(said.failed), "left_out": said.left_out,
                "disagreement": plain(disagreement), "first": plain(first),
            }
        )  # fmt: skip
        out.text(f"{said.annotator}: {said.judged} items judged, {said.requests} requests, {said.tokens} tokens")
        if said.agreed:
            out.text(f"the winner depends on the order in {disagreement:.0%} of {len(said.agreed)} comparisons")
        if said.shown_first:
            out.text(f"{first:.0%} of {len(said.shown_first)} verdicts, without ties, are for the answer shown first")
        if said.failed:
            name, why = said.failed[0]
            out.text(
                f"note: {len(said.failed)} items were not judged, e.g. {name}: {why}; the same command asks about them again"
            )
        if said.left_out:
            out.text(f"note: {said.left_out} items ask for something else than comparisons and ratings and were left out")
        return 0


def share(values: Sequence[float]) -> float:
    """The mean of 0s and 1s; NaN of none."""
    return sum(values) / len(values) if values else math.nan
