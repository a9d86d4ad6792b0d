"""The loop: rollout → reward → advantage → update, step after step, phase after phase; a kill anywhere loses no step."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hookline.batch.stages import Rollout, Scored, Term
from hookline.contract.metrics import MetricLog, figure_name
from hookline.errors import CheckpointError, Stopped
from hookline.loop import guards
from hookline.loop.checks import check_batch
from hookline.loop.context import Context
from hookline.loop.phase import PhaseState, tokenizer_of
from hookline.loop.rewards import ask_rewards
from hookline.loop.signals import Stopping, stop_signals
from hookline.plan.plan import Plan
from hookline.runs.run import Run

__all__ = ["PhaseLoop", "run_experiment"]


def run_experiment(plan: Plan, run: Run) -> None:
    """Every phase that is not finished, in order."""
    if plan.experiment.threads:
        torch.set_num_threads(plan.experiment.threads)
    run.trackers = {slot.instance: slot.component for slot in plan.trackers}
    status = "failed"
    with stop_signals() as stopping, asyncio.Runner() as answers:
        try:
            _forget_unsaved(plan, run)
            run.tell("run_started")
            tokenizer = tokenizer_of(plan, run)
            for phase in plan.phases:
                if run.finished(phase.spec.name) is None:
                    PhaseLoop(plan, phase, run, tokenizer, answers).run(stopping)
            status = "finished"
        except (Stopped, KeyboardInterrupt):
            status = "stopped"
            raise
        finally:
            run.tell("run_finished", status=status)


class PhaseLoop(PhaseState):
    """One phase, step by step."""

    def run(self, stopping: Stopping) -> None:
        s, run = self.shared, self.run_
        run.tell("phase_started", phase=self.spec.name, steps=self.spec.steps, done=s.step)
        if s.step == 0 and self.evaluators:
            self._evaluate(at_start=True)
            run.commit_row(self.spec.name, 0, *s.metrics.collect())
        while s.step < self.spec.steps:
            began = time.perf_counter()
            tokens = self.step()
            s.step += 1
            s.metrics.add("tokens_per_second", tokens / max(time.perf_counter() - began, 1e-9))
            self._evaluate()
            figures, timings = s.metrics.collect()
            run.commit_row(self.spec.name, s.step, figures, timings)
            self._keep_best(figures)
            stop = stopping.code if s.step < self.spec.steps else 0
            if stop or (s.step % self.spec.save.every == 0 and s.step < self.spec.steps):
                self._save()
            if stop:
                raise Stopped(
                    f"stopped after step {s.step} of phase '{self.spec.name}', saved",
                    "run the same command to go on",
                    stop,
                )
        self._finish()
        if stopping.code and self.phase is not self.plan.phases[-1]:
            raise Stopped(
                f"stopped after phase '{self.spec.name}', saved", "run the same command to go on", stopping.code
            )

    def step(self) -> int:
        """One pass through the hooks. Returns the number of tokens the policy chose."""
        ctx, hooks, phase, metrics = self.ctx, self.hooks, self.phase, self.shared.metrics
        self.shared.cache.clear()
        self.shared.asked.clear()
        with _timed(metrics, "rollout"):
            batch: Rollout = hooks.rollout(ctx)
        if phase.rewards or {"recorded_B", "recorded_BT"} & batch.extra.keys():
            with _timed(metrics, "reward"):
                batch = hooks.score(ctx, batch)
                guards.learning_signal(phase, batch, self.signal, metrics, self.run_.notice)
        if phase.advantage_by and isinstance(batch, Scored):
            with _timed(metrics, "advantage"):
                batch = hooks.advantage(ctx, batch)
        if phase.feedback and isinstance(batch, Scored):
            self._collect(batch)
        if phase.update:
            guards.policy_age(phase, batch, self.shared.roles["policy"].version)
            with _timed(metrics, "update"):
                for name, value in hooks.update(ctx, batch).items():
                    metrics.add(name, float(value), who=f"'{phase.update.instance}'")
        return guards.count(batch, metrics)

    def score(self, ctx: Context, rollout: Rollout) -> Scored:
        """The core's answer to hookline_score: ask every named reward, drop unjudged rows, weigh, sum."""
        rewards = self.hooks.rewards
        if not rewards:
            recorded = rollout.extra.get("recorded_BT", rollout.extra.get("recorded_B"))
            assert recorded is not None
            recorded = recorded.float()
            return rollout.scored(recorded, {"recorded": recorded.sum(1) if recorded.dim() == 2 else recorded})
        terms = ask_rewards(ctx, rewards, rollout, self.answers)
        ok_B = torch.stack([t.ok_B for t in terms.values() if t.ok_B is not None]).all(0)
        if not bool(ok_B.all()):
            self.shared.metrics.add("unjudged", float((~ok_B).sum()))
            keep = ok_B.nonzero()[:, 0]
            rollout = rollout.rows(keep)
            T = rollout.token_ids_BT.shape[1]
            terms = {n: Term(t.value[keep] if t.value.dim() == 1 else t.value[keep][:, :T]) for n, t in terms.items()}
        total_BT = torch.zeros(rollout.token_ids_BT.shape)
        totals: dict[str, torch.Tensor] = {}
        for name, term in terms.items():
            one = rollout.scored(term.value)
            totals[name] = one.reward_B
            total_BT += rewards[name][1].weight * one.reward_BT
            if len(rollout):
                self.shared.metrics.add(f"reward/{name}", ctx.mean(totals[name]), len(rollout))
        scored = rollout.scored(total_BT, totals)
        weighed = " + ".join(f"{rewards[name][1].weight:g} × {name}" for name in terms)
        check_batch(scored, f"the sum of rewards, {weighed}")
        return scored

    def _evaluate(self, at_start: bool = False) -> None:
        for evaluator in self.evaluators:
            every, step = evaluator.spec.every, self.shared.step
            if at_start or step == self.spec.steps or (every and step % every == 0):
                with _timed(self.shared.metrics, f"evaluate-{evaluator.spec.name}"):
                    figures, samples = evaluator.run(self.ctx, self.answers)
                for name, value in figures.items():
                    self.shared.metrics.add(figure_name(evaluator.spec.name, name), value)
                self.run_.commit_samples(self.spec.name, step, evaluator.spec.name, samples)

    def _collect(self, scored: Scored) -> None:
        """Write what the annotators said, token for token as it was sampled, into the phase's data."""
        entries = []
        for source, judgement in self.hooks.judge(self.ctx, scored):
            rows = judgement.ranking
            answers = [
                {
                    "text": scored.response_text(i),
                    "token_ids": scored.response_ids(i),
                    "sample": int(scored.sample_B[i]),
                }
                for i in rows
            ]
            for answer, worth in zip(answers, judgement.gold or ()):
                answer["gold"] = worth
            entries.append(
                {
                    "prompt": scored.prompt_text(rows[0]),
                    "prompt_ids": scored.prompt_ids(rows[0]),
                    "ranking": answers,
                    "source": source,
                    "annotator": judgement.annotator,
                    "record": dict(scored.records[rows[0]]),
                    "detail": dict(judgement.detail),
                }
            )
        self.run_.collect(self.spec.name, entries)
        self.collected += len(entries)
        self.shared.metrics.add("judgements", len(entries))


def _forget_unsaved(plan: Plan, run: Run) -> None:
    """Cut rows back to the newest save, before trackers look: what came after it is made again, bit for bit."""
    rows = 0
    for phase, later in zip(plan.phases, plan.phases[1:]):
        gone, after = run.phase_folder(phase.spec.name), run.phase_folder(later.spec.name)
        if after.exists() and not gone.exists():
            raise CheckpointError(
                f"{gone} is missing, though phase '{later.spec.name}' that came after it is there",
                "restore it, or remove the later phases too to make them again",
            )
    for phase in plan.phases:
        ended = run.finished(phase.spec.name)
        newest = None if ended else run.newest_checkpoint(phase.spec.name)
        saved = ended or (newest and newest[1])
        rows = int(saved["rows"]) if saved else rows
        if ended is None:
            break
    run.cut_back(rows)


@contextmanager
def _timed(metrics: MetricLog, part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    metrics.add(f"seconds/{part}", time.perf_counter() - began)
