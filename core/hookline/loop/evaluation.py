"""Evaluations on other rows than those of training, with the same seeds every time; each row is judged and kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch

from hookline.batch.join import concat
from hookline.batch.stages import Rollout, Scored, Term
from hookline.contract.component import Component
from hookline.errors import DataError, PluginError, nearest
from hookline.loop.checks import check_term
from hookline.loop.context import PhaseContext
from hookline.loop.hooks import ask
from hookline.loop.rewards import ask_rewards, recorded
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
        self.update = planned.update
        """The update whose own figures are asked for."""

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
            terms = ask_rewards(ctx, self.rewards, judged) if self.rewards else self._own(ctx, judged)
        finally:
            ctx.forget()
        rollout, ok_B, terms = whole(rollout, ok_B, terms, ctx.world)
        judged = rollout if bool(ok_B.all()) else rollout.rows(ok_B)
        of_answer = {name: term.value if term.value.dim() == 1 else term.value.sum(1) for name, term in terms.items()}
        scored = judged.scored(judged.token_ids_BT.new_zeros(judged.token_ids_BT.shape), of_answer)
        figures = {}
        for name, term in terms.items():
            component, slot = self._gives(name)
            with blame(slot, "summarise"):
                figures[name] = float(component.summarise(term, scored))
        said: list[dict[str, float]] = [{} for _ in judged.records]
        weights: list[dict[str, float]] = [{} for _ in judged.records]
        for name, term in terms.items():
            figure_B = self._of_rows(name, term, scored)
            for row, ok in enumerate(term.ok_B.tolist() if term.ok_B is not None else ()):
                if ok:
                    said[row][name] = figure_B[row]
                    if term.weight_B is not None:
                        weights[row][name] = float(term.weight_B[row])
        of_row = dict(zip(ok_B.nonzero()[:, 0].tolist(), zip(said, weights)))
        samples = [
            {
                "sample": int(rollout.sample_B[row]),
                "group": int(rollout.group_B[row]),
                "prompt": rollout.prompt_text(row),
                "response": rollout.response_text(row),
                "tokens": int(rollout.mask_BT[row].sum()),
                "terms": of_row.get(row, ({}, {}))[0],
                **({"weights": of_row[row][1]} if row in of_row and of_row[row][1] else {}),
            }
            for row in range(len(rollout))
        ]
        self._leave_out(figures, samples, scored, terms)
        return figures, samples

    def _own(self, ctx: PhaseContext, rollout: Rollout) -> dict[str, Term]:
        """The update's own figures of the rows; none if the rows are not at the stage that the update takes."""
        slot = self.update
        batch = rollout if slot is None or isinstance(rollout, slot.cls.takes) else recorded(rollout)
        if slot is None or batch is None or not isinstance(batch, slot.cls.takes):
            return {}
        with blame(slot, "held_out"):
            terms = slot.component.held_out(ctx.bound(slot), batch)
            known = self.planned.figures
            for name in terms:
                if name not in known:
                    raise PluginError(
                        f"held_out gives '{name}', which '{slot.instance}' does not declare{nearest(name, known)}",
                        f'add Metric("{name}", "its formula") to its `metrics`',
                    )
            return {name: check_term(term, slot, rollout) for name, term in terms.items()}

    def _gives(self, name: str) -> tuple[Component, Slot]:
        """The component that gives a figure."""
        if name in self.rewards:
            return self.rewards[name]
        assert self.update is not None
        return self.update.component, self.update

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
        component, slot = self._gives(name)
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
            (component, slot), term = self._gives(name), terms[name]
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
    ok_B, weight_B = (None if column is None else column[list(rows)] for column in (term.ok_B, term.weight_B))
    return Term(value, ok_B, weight_B, term.summary), some
