"""The loop: rollout → reward → advantage → update, step after step; after a kill, lost steps are repeated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hookline.batch.stages import Rollout, Scored, Term
from hookline.contract.metrics import figure_name
from hookline.errors import ServiceError, Stopped
from hookline.loop import beginning, completions, guards, stopping_early
from hookline.loop.checkpoint import Checkpoint, cut_to_newest_save
from hookline.loop.checks import check_batch
from hookline.loop.collecting import events
from hookline.loop.context import PhaseContext
from hookline.loop.phase import Phase
from hookline.loop.rewards import ask_rewards, recorded
from hookline.loop.session import Session
from hookline.loop.shares import level
from hookline.plan.plan import Plan, PlannedPhase
from hookline.runs.figures import MetricLog
from hookline.runs.run import Run
from hookline.training.progress import nothing_learned, nothing_to_train, unanswered
from hookline.world.signals import Stopping, stop_signals

__all__ = ["PhaseLoop", "run_experiment"]


def run_experiment(plan: Plan, run: Run) -> None:
    """Run every unfinished phase, in order."""
    if plan.experiment.threads:
        torch.set_num_threads(plan.experiment.threads)
    status = "failed"
    with stop_signals(run.world.leads) as stopping, asyncio.Runner() as answers:
        session = Session(plan, run, answers, stopping)
        trackers = session.trackers
        try:
            cut_to_newest_save(plan, run)
            trackers.tell("run_started")
            for phase in plan.phases:
                if not run.has_finished(phase.spec.name, phase.spec.steps):
                    with PhaseLoop(session, phase) as loop:
                        loop.run(stopping)
            status = "finished"
            run.share_notices()
        except (Stopped, KeyboardInterrupt):
            status = "stopped"
            raise
        finally:
            trackers.tell("run_finished", status=status)
            session.close()


class PhaseLoop:
    """One phase, step by step, from its newest checkpoint. Leaving the block closes its components."""

    def __init__(self, session: Session, planned: PlannedPhase, finished: bool = False) -> None:
        """finished: the phase has ended and is only read, with the weights it ended with."""
        self.session, self.planned, self.spec = session, planned, planned.spec
        self.phase = Phase(session, planned, self.score, finished)
        self.checkpoint = Checkpoint(self.phase)
        self.answers: list[dict[str, Any]] = []
        """The answers of the present step that are to be kept."""
        self.ctx, self.hooks, self.evaluators = self.phase.ctx, self.phase.hooks, self.phase.evaluators
        try:
            self.phase.load_end() if finished else self.checkpoint.restore()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PhaseLoop:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the phase's components; may be called twice."""
        self.phase.close()

    def run(self, stopping: Stopping) -> None:
        scope, metrics, session, name = self.phase.scope, self.phase.metrics, self.session, self.spec.name
        session.trackers.tell("phase_started", phase=name, steps=self.spec.steps, done=scope.step)
        if scope.step == 0 and self.evaluators:
            self._compare_rows()
            self._evaluate(at_start=True)
            figures, timings = metrics.collect()
            stopping_early.watch(self.phase, figures)
            session.commit_row(name, 0, figures, timings)
        with self.session.world.stepping():
            self._steps(stopping)
        if self.planned.feedback:
            self._answered()
        if said := nothing_to_train(self.planned, self._figures()):
            session.run.notice(said)
        elif self.planned.feedback and not self.phase.counters.collected:
            session.run.notice(f"phase '{name}' collected no judgement in {scope.step} steps")
        self.checkpoint.finish(self.planned is session.plan.phases[-1])
        asked = int(session.world.max(stopping.code, "the signals"))
        if asked and self.planned is not session.plan.phases[-1]:
            raise Stopped(f"stopped after phase '{name}', saved", "run the same command to continue", asked)

    def _steps(self, stopping: Stopping) -> None:
        """Take the phase's steps, each with its row and what is due after it."""
        scope, metrics, session, name = self.phase.scope, self.phase.metrics, self.session, self.spec.name
        while not self.phase.ended:
            stopping.in_step = True
            began = time.perf_counter()
            try:
                tokens = session.world.sum(self.step(), "the step's tokens")
            finally:  # the answers of a step that failed say more than any other
                self._commit_completions()
            scope.step += 1
            metrics.add("tokens_per_second", tokens / max(time.perf_counter() - began, 1e-9))
            self._evaluate()
            figures, timings = metrics.collect()
            if stopping_early.watch(self.phase, figures):
                self._evaluate(rest=True)
                figures, timings = (a | b for a, b in zip((figures, timings), metrics.collect()))
            session.commit_row(name, scope.step, figures, timings)
            self._learned()
            self.checkpoint.keep_best(figures)
            asked = int(session.world.max(stopping.code, "the signals"))
            stop = asked if not self.phase.ended else 0
            if stop or (scope.step % self.spec.save.every == 0 and not self.phase.ended):
                self.checkpoint.save()
            stopping.in_step = False
            if stop:
                raise Stopped(
                    f"stopped after step {scope.step} of phase '{name}', saved",
                    "run the same command to continue",
                    stop,
                )

    def _learned(self) -> None:
        """End a phase that has learned or collected nothing, after `patience` steps or at its end."""
        trainer, step, counters = self.phase.trainer, self.phase.scope.step, self.phase.counters
        found = self.session.world.gather(self.ctx.failed, "the failures of services")
        counters.failed = counters.failed or next(filter(None, found), "")
        self.session.run.share_notices()
        if step < self.spec.patience and not self.phase.ended:
            return
        if trainer and not trainer.learned:
            raise nothing_learned(self.planned, self._figures(), counters.failed)
        idle = not trainer and counters.failed and not counters.collected
        if idle and (service := unanswered(self.planned, self._figures(), counters.failed)):
            raise service

    def _answered(self) -> None:
        """End the run where a later phase learns from answers, and there are none so far. Run again, the phase asks anew."""
        run, name = self.session.run, self.spec.name
        read = self.session.plan.read_with(name)
        if read and not self.ctx.main(lambda: run.answered(read)):
            self.ctx.main(lambda: run.journal.unanswered(name))
            raise ServiceError(
                f"nobody has answered in phase '{name}', and a later phase learns from the answers",
                "run the same command again: it asks about the same samples, and waits anew",
            )

    def _figures(self) -> list[dict[str, Any]]:
        """The figures of the phase's steps so far."""
        return [r["metrics"] for r in self.session.run.rows() if r["phase"] == self.spec.name and r["step"]]

    def step(self) -> int:
        """One pass through the hooks. Returns the number of tokens the policy chose."""
        ctx, hooks, phase, metrics = self.ctx, self.hooks, self.planned, self.phase.metrics
        self.phase.begin_step()
        with _timed(metrics, "rollout"):
            batch: Rollout = hooks.rollout(ctx)
            batch = level(batch, self.session.world)
            guards.one_prompt_per_group(phase, batch)
        if "ok_B" in batch.extra:
            batch = batch.rows(guards.judged(batch, batch.extra["ok_B"], metrics))
        if phase.rewards or {"recorded_B", "recorded_BT"} & batch.extra.keys():
            with _timed(metrics, "reward"):
                batch = hooks.score(ctx, batch)
                guards.learning_signal(phase, batch, self.phase.counters, metrics, self.session.run.notice)
        if phase.advantage_by and isinstance(batch, Scored):
            with _timed(metrics, "advantage"):
                batch = hooks.advantage(ctx, batch)
        if phase.feedback:
            self._collect(batch)
        self.answers = self._shown(batch)
        if self.phase.scope.step == 0:
            for text in beginning.first_step(phase, batch, self.session.tokenizer, self.session.world):
                self._notice_once(text)
        if phase.update:
            guards.policy_age(phase, batch, self.phase.roles["policy"].version)
            with _timed(metrics, "update"):
                for name, value in hooks.update(ctx, batch).items():
                    metrics.add(name, value, who=f"'{phase.update.instance}'")
        return guards.count(batch, metrics)

    def _notice_once(self, text: str) -> None:
        """Print what every rank knows, unless a step that is repeated has said it."""
        if self.session.world.leads and text not in self.session.run.notices:
            self.session.run.notice(text)

    def _compare_rows(self) -> None:
        """Say which evaluations read rows that training reads too; reports read it in run.json."""
        run, name = self.session.run, self.spec.name
        found = dict(beginning.shared_rows(self.planned, run.data))
        for evaluation, about in found.items():
            self._notice_once(
                f"{about['shared']} of {about['rows']} prompts of evaluation '{evaluation}' are also in the training data of "
                f"phase '{name}', the first: '{about['first']}'; its figures are not about unseen rows"
            )
        if found:
            run.note(shared_rows={**run.about.get("shared_rows", {}), name: found})

    def _shown(self, batch: Rollout) -> list[dict[str, Any]]:
        """A few answers of this step, if it is one whose answers are kept."""
        spec = self.spec.completions
        kept = self.session.world.leads and completions.due(self.phase.scope.step + 1, spec)
        return completions.shown(batch, spec.rows) if kept else []

    def _commit_completions(self) -> None:
        """Write the answers of the present step that are kept."""
        answers, self.answers = self.answers, []
        if answers:
            self.session.commit_completions(self.spec.name, self.phase.scope.step + 1, answers)

    def score(self, ctx: PhaseContext, rollout: Rollout) -> Scored:
        """The core's answer to hookline_score: call every named reward, drop unjudged rows, weigh and sum the rest."""
        rewards = self.hooks.rewards
        if not rewards:
            paid = recorded(rollout)
            assert paid is not None
            return paid
        terms = ask_rewards(ctx, rewards, rollout)
        ok_B = torch.stack([t.ok_B for t in terms.values() if t.ok_B is not None]).all(0)
        if not bool(ok_B.all()):
            keep = guards.judged(rollout, ok_B, self.phase.metrics)
            rollout = rollout.rows(keep)
            T = rollout.token_ids_BT.shape[1]
            terms = {n: Term(t.value[keep] if t.value.dim() == 1 else t.value[keep][:, :T]) for n, t in terms.items()}
        total_BT = torch.zeros(rollout.token_ids_BT.shape)
        totals: dict[str, torch.Tensor] = {}
        for name, term in terms.items():
            one = rollout.scored(term.value)
            totals[name] = one.reward_B
            total_BT += rewards[name][1].weight * one.reward_BT
            mean = self.session.world.mean(totals[name], f"the mean of reward '{name}'")
            self.phase.metrics.add(f"reward/{name}", mean, len(rollout))
        scored = rollout.scored(total_BT, totals)
        weighed = " + ".join(f"{rewards[name][1].weight:g} × {name}" for name in terms)
        check_batch(scored, f"the sum of rewards, {weighed}")
        return scored

    def _evaluate(self, at_start: bool = False, rest: bool = False) -> None:
        """at_start: before the first step. rest: those that are not due after this step, which turned out to be the last."""
        for evaluator in self.evaluators:
            every, step = evaluator.spec.every, self.phase.scope.step
            due = step == self.spec.steps or bool(every and step % every == 0)
            if at_start or due is not rest:
                with _timed(self.phase.metrics, f"evaluate-{evaluator.spec.name}"):
                    figures, samples = evaluator.run(self.ctx)
                for name, value in figures.items():
                    self.phase.metrics.add(figure_name(evaluator.spec.name, name), value)
                self.session.commit_samples(self.spec.name, step, evaluator.spec.name, samples)

    def _collect(self, batch: Rollout) -> None:
        """Write the annotators' judgements into the phase's data, with the token ids as they were sampled."""
        judged = self.hooks.judge(self.ctx, batch)
        sources = [slot.instance for slot in reversed(self.planned.feedback)]  # as pluggy asks them
        every = events(judged, batch, self.spec.name, self.phase.scope.step, sources, self.session.world)
        self.session.run.collect(self.spec.name, every)
        self.phase.counters.collected += len(every)
        self.phase.metrics.add("judgements", len(judged))


@contextmanager
def _timed(metrics: MetricLog, part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    metrics.add(f"seconds/{part}", time.perf_counter() - began)
