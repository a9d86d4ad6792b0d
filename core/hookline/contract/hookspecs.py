"""The contract: which hooks a plugin may answer, when each is called, and what it may do with its arguments.

A component is a class with some of these methods, each marked `@hookimpl`. An implementation names only the arguments
that it uses: `def hookline_advantage(self, scored)` is complete. Batches are shared with other components: add columns,
but do not change anything in place; a changed tensor is detected and refused.

The fields, methods, shapes and units of the arguments are described in docs/api.md, together with the hooks below.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

    from hookline.batch.stages import Advantaged, Batch, Rollout, Scored, Term
    from hookline.contract.context import Context
    from hookline.contract.feedback import Event
    from hookline.contract.judgement import Judgement
    from hookline.contract.run import Run

__all__ = ["HOOK_API", "StageSpecs", "TrackerSpecs", "hookimpl"]

HOOK_API = "1.0"
"""The version of this contract. A plugin may set `hook_api = "1.0"`; another major or a newer minor is refused."""
hookspec = pluggy.HookspecMarker("hookline")
hookimpl = pluggy.HookimplMarker("hookline")
"""Marks a method as the answer to a hook. `@hookimpl(wrapper=True)` on a generator method wraps the answer instead."""


class StageSpecs:
    """The hooks of a phase: the four steps of the loop, `hookline_score` and `hookline_judge`."""

    @hookspec(firstresult=True)
    def hookline_rollout(self, ctx: Context) -> Rollout:
        """Return the rows of this step: sample them from the policy, or read them from a dataset.

        Called first in every step; the component that the phase names under `rollout` answers. Rows of one prompt share
        a group. `ctx.sample_ids(n)` returns new sample ids, `ctx.encode(record)` encodes a record as token ids, and
        `Rollout.build(ctx, rows, …)` makes a rollout from encoded rows. A batch of no rows is a step without update.
        Set `Rollout.behaviour` for rows that were sampled from the policy, and omit it for rows that were read;
        algorithms that need ratios are then refused before the run starts.

        A row that could not be played to its end, e.g. because its environment failed, cannot be judged: add a column
        `ok_B` to every batch, false for such rows (`rollout.with_extra(ok_B=…)`). The core drops and counts them
        (`unjudged`) together with the other rows of their episodes, before any reward is called; an evaluation lists
        them without a figure.
        """
        raise NotImplementedError

    @hookspec
    def hookline_reward(self, ctx: Context, rollout: Rollout) -> Tensor | Term | Awaitable[Tensor | Term]:
        """Judge every row: one number per row [B], or per token [B, T].

        Called once per step for each reward that the phase names; a reward does not see the answers of other rewards.
        Return a `Term` if some rows could not be judged: these rows and the other rows of their episodes are dropped
        and counted, never averaged in. May be an `async def`; all async rewards of a step run concurrently.
        `rollout.records[i]` is the dataset row of row i.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def hookline_score(self, ctx: Context, rollout: Rollout) -> Scored:
        """Weigh and sum the rewards. The core answers; wrap this hook to shape, penalise, clip or normalise rewards.

        A wrapper receives numbers, never coroutines: `scored = yield`, then `return scored.with_reward(...)`.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def hookline_advantage(self, ctx: Context, scored: Scored) -> Advantaged:
        """Turn rewards into one advantage per response token.

        Called once per step, after all rewards are known and before the first update epoch. The component that the
        phase names under `advantage` answers. If the phase names none, the update may answer this hook itself, so that
        an algorithm can be one class that reads like its paper. Return `scored.advantaged(advantage, **columns)`.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def hookline_update(self, ctx: Context, batch: Batch) -> Mapping[str, float] | None:
        """Change the weights, through `ctx.train(batch, loss)`.

        Called last in every step, also for a batch of no rows, so that every rank takes part. `batch` has the latest
        stage that the phase reaches. The component declares the earliest stage that it accepts (`takes = Advantaged`),
        and a phase that stops before that stage is refused. The returned figures are added to the step's row; their
        names must be declared in `metrics`.
        """
        raise NotImplementedError

    @hookspec
    def hookline_judge(self, ctx: Context, scored: Scored) -> Sequence[Judgement | Event]:
        """Compare or rank rows of a batch, as an annotator would. Called after scoring, for phases that name `feedback`.

        A component whose `takes` is Rollout reads no rewards, and gets a Rollout where the phase names none. A `Judgement` is about
        rows of this batch. An `Event` holds what was judged, e.g. answers of earlier steps about which
        people were asked with `ctx.item`. The core writes both to the phase's data, which a later phase can read
        (`from: PHASE`).
        """
        raise NotImplementedError


class TrackerSpecs:
    """The hooks of trackers. A tracker that fails is reported once and no longer called; the run continues."""

    @hookspec
    def hookline_run_started(self, run: Run) -> None:
        """The run is open. `run.rows()` returns the valid rows: after a resume, the rows up to the newest save.

        `run.resumed` is then true, and later rows that the tracker may have seen before the kill are sent again.
        """
        raise NotImplementedError

    @hookspec
    def hookline_phase_started(self, run: Run, phase: str, steps: int, done: int) -> None:
        """A phase begins, or continues after `done` of its `steps`."""
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
    def hookline_completions(
        self, run: Run, phase: str, step: int, completions: Sequence[Mapping[str, Any]]
    ) -> None:
        """A few answers of a training step, before the step's row; which ones, the phase's `completions` says.

        Each is a mapping, as one line of completions.jsonl: `row`, `phase`, `step`, `sample`, `group`, `prompt`,
        `completion`, `tokens` (those that the policy chose), `finish_reason` (`stop`, `length`, or `recorded` for a row
        that was read from data), `source`, `reward` (weighted, summed, and changed by wrappers), `reward/NAME` for each
        named reward before its weight, and `advantage`, the mean over the chosen tokens. `reward` and `advantage` are
        None where the phase has none. A row with tokens that the policy did not choose, or one of several rows of an
        episode, also has `episode` and `stretches`: its response in pieces, each with `text`, `tokens` and `chosen`, and
        with the `reward` and mean `advantage` of what was chosen. With several processes these are rows of rank 0.
        `run.completions()` returns all of a run: after a resume, those up to the newest save.
        """
        raise NotImplementedError

    @hookspec
    def hookline_run_finished(self, run: Run, status: str) -> None:
        """The run ends: `finished`, `stopped` or `failed`. Trackers write their files to `run.directory`.

        Trackers are called in the experiment's order. A tracker that writes files for other trackers to upload should
        be marked `@hookimpl(tryfirst=True)`.
        """
        raise NotImplementedError
