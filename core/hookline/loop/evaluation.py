"""Rows the training never sees: drawn with the same seeds every time, judged row by row, kept for paired comparison."""

from __future__ import annotations

import asyncio
from typing import Any

from hookline.batch.join import concat
from hookline.batch.stages import Rollout, Scored, Term
from hookline.contract.component import Component
from hookline.errors import DataError
from hookline.loop.context import Context
from hookline.loop.hooks import ask, blame
from hookline.plan.plan import PlannedEvaluation

__all__ = ["Evaluator"]


class Evaluator:
    """One evaluation of a phase."""

    def __init__(self, planned: PlannedEvaluation) -> None:
        self.planned = planned
        self.spec = planned.spec
        self.rollout = planned.rollout.component
        self.rewards: dict[str, tuple[Component, Any]] = {
            slot.instance: (slot.component, slot) for slot in planned.rewards
        }
        self.last: tuple[Scored, dict[str, Term]] | None = None
        """The rows and terms of the latest evaluation."""

    @property
    def components(self) -> list[Component]:
        return [slot.component for slot in self.planned.every]

    def setup(self, ctx: Context) -> None:
        for top in (self.planned.rollout, *self.planned.rewards):
            for slot in reversed([*top.every()]):
                with blame(slot, "setup"):
                    slot.component.setup(ctx.bound(slot))

    def run(self, ctx: Context, answers: asyncio.Runner) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """(figures by reward name, one sample per row). The phase's own counters stay where they are."""
        from hookline.loop.rewards import ask_rewards

        s = ctx._shared
        step, s.step, s.evaluation, s.evaluation_samples, s.evaluated_at = s.step, 0, self.spec.name, 0, s.step
        try:
            parts: list[Rollout] = []
            while sum(map(len, parts)) < self.spec.rows:
                part = ask(self.rollout, self.planned.rollout, "hookline_rollout", {"ctx": ctx})
                if not len(part):
                    break
                parts.append(part)
                s.step += 1
            if not parts:
                raise DataError(f"evaluation '{self.spec.name}' has no rows", "give it a split that holds some")
            rollout = concat(parts)
            if len(rollout) > self.spec.rows:
                rollout = rollout.rows(range(self.spec.rows))
            terms = ask_rewards(ctx, self.rewards, rollout, answers)
        finally:
            s.step, s.evaluation = step, ""
            s.cache.clear()
            s.asked.clear()
        scored = rollout.scored(rollout.token_ids_BT.new_zeros(rollout.token_ids_BT.shape), {})
        figures = {}
        for name, term in terms.items():
            component, slot = self.rewards[name]
            with blame(slot, "summarise"):
                figures[name] = float(component.summarise(term, scored))
        self.last = scored, terms
        totals = {name: (t.value if t.value.dim() == 1 else t.value.sum(1)).tolist() for name, t in terms.items()}
        judged = {name: t.ok_B.tolist() for name, t in terms.items() if t.ok_B is not None}
        samples = [
            {
                "sample": int(rollout.sample_B[row]),
                "group": int(rollout.group_B[row]),
                "prompt": rollout.prompt_text(row),
                "response": rollout.response_text(row),
                "tokens": int(rollout.mask_BT[row].sum()),
                "terms": {name: value[row] for name, value in totals.items() if judged[name][row]},
            }
            for row in range(len(rollout))
        ]
        return figures, samples
