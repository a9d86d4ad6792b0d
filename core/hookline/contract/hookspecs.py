"""The whole contract: which hooks a plugin may answer, when each is called, and what it may do with its arguments.

A component is a class with some of these methods, each marked `@hookimpl`. An implementation names only the arguments
it uses: `def hookline_advantage(self, scored)` is complete. Batches are shared with other
components: add columns, change nothing in place; a changed tensor is detected and refused.

What the arguments have (fields, methods, shapes, units) is described in docs/api.md, with the hooks below.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

    from hookline.batch.stages import Advantaged, Batch, Judgement, Rollout, Scored, Term
    from hookline.contract.context import Context
    from hookline.contract.run import Run

__all__ = ["HOOK_API", "StageSpecs", "TrackerSpecs", "hookimpl"]

HOOK_API = "1.0"
"""Version of this page. A plugin may say `hook_api = "1.0"`; another major, or a newer minor, is refused by name."""
hookspec = pluggy.HookspecMarker("hookline")
hookimpl = pluggy.HookimplMarker("hookline")
"""Marks a method as an answer to a hook. `@hookimpl(wrapper=True)` on a generator wraps the answer instead."""


class StageSpecs:
    """The hooks of a phase: the four of the loop, and `hookline_score` and `hookline_judge`."""

    @hookspec(firstresult=True)
    def hookline_rollout(self, ctx: Context) -> Rollout:
        """Bring experience: sample it from the policy, or read it from a dataset.

        Called first in every step; the one component that the phase names under `rollout` answers. Rows of one prompt
        share a group, `ctx.sample_ids(n)` hands out sample ids. `ctx.encode(record)` makes token ids of a record, and
        `Rollout.build(ctx, rows, …)` a rollout of rows. A batch of no rows is a step without update. Only what
        sampled from the policy can say how (`Rollout.behaviour`); read data leaves it out, and algorithms that need
        ratios are then refused before the run starts.

        A row that could not be played to its end, e.g. because its environment failed, is not judged: give every batch a
        column `ok_B`, false for such rows (`rollout.with_extra(ok_B=…)`). The core drops and counts them (`unjudged`),
        whole episodes at once, before a reward is asked; an evaluation shows them without a figure.
        """
        raise NotImplementedError

    @hookspec
    def hookline_reward(self, ctx: Context, rollout: Rollout) -> Tensor | Term | Awaitable[Tensor | Term]:
        """Judge every row: one number per row [B], or per token [B, T].

        Called once per step for each reward the phase names, each by itself; others' answers are not seen. Return a
        `Term` to say that some rows could not be judged: they are dropped and counted, never averaged in, and with them
        the other rows of their episodes. May be an `async def`; all such rewards of a step wait together.
        `rollout.records[i]` is the dataset row.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def hookline_score(self, ctx: Context, rollout: Rollout) -> Scored:
        """Weigh and sum the rewards. The core answers; wrap this hook to shape, penalise, clip or normalise.

        A wrapper sees numbers, never coroutines: `scored = yield`, then `return scored.with_reward(...)`.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def hookline_advantage(self, ctx: Context, scored: Scored) -> Advantaged:
        """Turn rewards into one advantage per response token.

        Called once per step, after all rewards are known and before the first update epoch. The component that the
        phase names answers. Where it names none, an update that has this method brings its own: an algorithm that
        reads like its paper is then one class. Return `scored.advantaged(advantage, **columns)`.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def hookline_update(self, ctx: Context, batch: Batch) -> Mapping[str, float] | None:
        """Change the weights, through `ctx.train(batch, loss)`.

        Called last in every step, also for a batch of no rows (then every rank still takes part). What it gets is the
        latest stage the phase reaches; the component says the least it takes (`takes = Advantaged`), and a phase that
        stops earlier is refused. The returned figures join the step's row under names the component declares.
        """
        raise NotImplementedError

    @hookspec
    def hookline_judge(self, ctx: Context, scored: Scored) -> Sequence[Judgement]:
        """Compare or rank rows of a batch, as an annotator would. Called after scoring, for phases that name `feedback`.

        The core writes the judgements into the phase's data, where a later phase reads them (`from: PHASE`).
        """
        raise NotImplementedError


class TrackerSpecs:
    """What a run tells its trackers. A tracker that fails is reported once and no longer called; the run and its log continue."""

    @hookspec
    def hookline_run_started(self, run: Run) -> None:
        """The run is open. `run.rows()` are the rows that count: after a resume, those up to the newest save.

        Later rows, which a tracker may have seen before a kill, come again. `run.resumed` is then true.
        """
        raise NotImplementedError

    @hookspec
    def hookline_phase_started(self, run: Run, phase: str, steps: int, done: int) -> None:
        """A phase begins, or goes on after `done` of its `steps`."""
        raise NotImplementedError

    @hookspec
    def hookline_row(self, run: Run, row: Mapping[str, Any]) -> None:
        """One step was committed: `{"row", "phase", "step", "metrics": {name: number}, "timings": {name: seconds}}`."""
        raise NotImplementedError

    @hookspec
    def hookline_samples(
        self, run: Run, phase: str, step: int, name: str, samples: Sequence[Mapping[str, Any]]
    ) -> None:
        """An evaluation finished; a sample is `{"prompt", "response", "terms": {name: number}, ...}`."""
        raise NotImplementedError

    @hookspec
    def hookline_run_finished(self, run: Run, status: str) -> None:
        """The run ends: `finished`, `stopped` or `failed`. Files a tracker made lie in `run.directory`.

        Trackers are called in the experiment's order. A tracker that makes files which others upload declares
        `@hookimpl(tryfirst=True)`.
        """
        raise NotImplementedError
