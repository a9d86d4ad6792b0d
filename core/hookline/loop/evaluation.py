"""Evaluations on rows that training never sees, with the same seeds every time; each row is judged and kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch

from hookline.batch.join import concat
from hookline.batch.stages import Rollout, Scored, Term
from hookline.contract.component import Component
from hookline.errors import DataError
from hookline.loop.context import PhaseContext
from hookline.loop.hooks import ask
from hookline.loop.rewards import ask_rewards
from hookline.loop.scope import Evaluation
from hookline.loop.shares import level, whole
from hookline.plan.plan import PlannedEvaluation
from hookline.registry.blame import blame
from hookline.registry.slot import Slot
from hookline.runs.samples import prompt_sums, summary_of

__all__ = ["Evaluator"]


class Evaluator:
    """One evaluation of a phase."""

    def __init__(self, planned: PlannedEvaluation) -> None:
        self.planned = planned
        self.spec = planned.spec
        self.rollout = planned.rollout.component
        self.rewards: dict[str, tuple[Component, Slot]] = {
            slot.instance: (slot.component, slot) for slot in planned.rewards
        }
        """The rows and terms of the latest evaluation."""

    @property
    def slots(self) -> list[Slot]:
        return [self.planned.rollout, *self.planned.rewards]

    def run(self, ctx: PhaseContext) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """(figures by reward name, one sample per row). The phase's own counters do not change."""
        scope = Evaluation(ctx.training, self.spec.name)
        ctx = ctx.scoped(scope)
        try:
            rollout = self._rows(ctx, scope)
            ok_B = rollout.extra.get("ok_B", torch.ones(len(rollout), dtype=torch.bool))
            judged = rollout if bool(ok_B.all()) else rollout.rows(ok_B)
            terms = ask_rewards(ctx, self.rewards, judged)
        finally:
            ctx.forget()
        rollout, ok_B, terms = whole(rollout, ok_B, terms, ctx.world)
        judged = rollout if bool(ok_B.all()) else rollout.rows(ok_B)
        scored = judged.scored(judged.token_ids_BT.new_zeros(judged.token_ids_BT.shape), {})
        figures = {}
        for name, term in terms.items():
            component, slot = self.rewards[name]
            with blame(slot, "summarise"):
                figures[name] = float(component.summarise(term, scored))
        said: list[dict[str, float]] = [{} for _ in judged.records]
        for name, term in terms.items():
            figure_B = self._of_rows(name, term, scored)
            for row, ok in enumerate(term.ok_B.tolist() if term.ok_B is not None else ()):
                if ok:
                    said[row][name] = figure_B[row]
        of_row = dict(zip(ok_B.nonzero()[:, 0].tolist(), said))
        samples = [
            {
                "sample": int(rollout.sample_B[row]),
                "group": int(rollout.group_B[row]),
                "prompt": rollout.prompt_text(row),
                "response": rollout.response_text(row),
                "tokens": int(rollout.mask_BT[row].sum()),
                "terms": of_row.get(row, {}),
            }
            for row in range(len(rollout))
        ]
        self._leave_out(figures, samples, scored, terms)
        return figures, samples

    def _rows(self, ctx: PhaseContext, scope: Evaluation) -> Rollout:
        """This rank's part of the rows of the evaluation."""
        parts: list[Rollout] = []
        drawn = 0.0
        while drawn < self.spec.rows:
            part = ask(self.rollout, self.planned.rollout, "hookline_rollout", {"ctx": ctx}, ctx.lend)
            count = ctx.world.sum(len(part), "the rows of an evaluation")
            if not count:
                break
            drawn += count
            parts.append(part)
            scope.step += 1
        if not parts:
            raise DataError(f"evaluation '{self.spec.name}' has no rows", "choose a split that has rows")
        rollout = level(concat([part for part in parts if len(part)] or parts[:1]), ctx.world)
        if drawn <= self.spec.rows:
            return rollout
        places, _ = ctx.world.order(rollout.sample_B.tolist(), "the order of an evaluation")
        return rollout.rows([row for row, place in enumerate(places) if place < self.spec.rows])

    def _of_rows(self, name: str, term: Term, scored: Scored) -> list[float]:
        """The figure of each row alone; with the default mean, that is the row's reward."""
        component, slot = self.rewards[name]
        if type(component).summarise is Component.summarise:
            return cast("list[float]", (term.value if term.value.dim() == 1 else term.value.sum(1)).tolist())
        with blame(slot, "summarise"):
            return [float(component.summarise(*_some(term, scored, [row]))) for row in range(len(scored))]

    def _leave_out(
        self, figures: dict[str, float], samples: list[dict[str, Any]], scored: Scored, terms: dict[str, Term]
    ) -> None:
        """Note in each prompt's first sample, under `without`, the figures without that prompt, for the intervals.

        Needed only where a component summarises rows in its own way; a mean and a perplexity follow from the rows.
        """
        first = {sample["group"]: sample for sample in reversed(samples)}
        for name, figure in figures.items():
            (component, slot), term = self.rewards[name], terms[name]
            if type(component).summarise is Component.summarise or not math.isfinite(figure):
                continue
            if summary_of([(prompt_sums(samples, name), figure)]):
                continue
            for group in dict.fromkeys(scored.group_B.tolist()):
                rows = (scored.group_B != group).nonzero()[:, 0].tolist()
                with blame(slot, "summarise"):
                    figure = float(component.summarise(*_some(term, scored, rows))) if rows else math.nan
                first[group].setdefault("without", {})[name] = figure


def _some(term: Term, scored: Scored, rows: Sequence[int]) -> tuple[Term, Scored]:
    """The term and the batch of some rows."""
    some = scored.rows(rows)
    value = term.value[list(rows)]
    value = value if value.dim() == 1 else value[:, : some.token_ids_BT.shape[1]]
    return Term(value, None if term.ok_B is None else term.ok_B[list(rows)]), some
