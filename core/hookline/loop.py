"""The loop: rollout → reward → advantage → update, step after step, phase after phase; a kill anywhere loses no step."""

from __future__ import annotations

import asyncio
import inspect
import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from hookline import models, state
from hookline.component import Component, Head, UpdateConfig
from hookline.context import Context, Shared
from hookline.engine import Trainer
from hookline.errors import CheckpointError, ExperimentError, NumbersError, Stopped
from hookline.evaluation import Evaluator
from hookline.metrics import CORE_METRICS, MetricLog
from hookline.models import Role
from hookline.plan import Plan, PlannedPhase
from hookline.plugins import Hooks, ask, blame, check_term
from hookline.runs import Run
from hookline.tokenizer import Tokenizer
from hookline.types import Rollout, Scored, Term

__all__ = ["run_experiment"]


def run_experiment(plan: Plan, run: Run) -> None:
    """Every phase that is not finished, in order."""
    if plan.experiment.threads:
        torch.set_num_threads(plan.experiment.threads)
    run.trackers = {slot.instance: slot.make() for slot in plan.trackers}
    status = "failed"
    with stop_signals() as stopping, asyncio.Runner() as answers:
        try:
            _forget_unsaved(plan, run)
            run.tell("run_started")
            tokenizer = _tokenizer(plan, run)
            for phase in plan.phases:
                if run.finished(phase.spec.name) is None:
                    PhaseLoop(plan, phase, run, tokenizer, answers, stopping).run()
            status = "finished"
        except (Stopped, KeyboardInterrupt):
            status = "stopped"
            raise
        finally:
            run.tell("run_finished", status=status)


class PhaseLoop:
    """One phase from its start, or from its newest whole checkpoint, to its end."""

    def __init__(
        self,
        plan: Plan,
        phase: PlannedPhase,
        run: Run,
        tokenizer: Tokenizer,
        answers: asyncio.Runner,
        stopping: Stopping,
        finished: bool = False,
    ) -> None:
        """finished: the phase is over and only looked at, with the weights it ended with."""
        self.plan, self.phase, self.spec, self.run_, self.answers, self.stopping = (
            plan,
            phase,
            phase.spec,
            run,
            answers,
            stopping,
        )
        self.hooks = Hooks(phase, self.score)
        self.evaluators = [Evaluator(evaluation) for evaluation in phase.evaluations]
        components = [*self.hooks.components.values(), *(c for e in self.evaluators for c in e.components)]
        metrics = MetricLog([*CORE_METRICS, *(metric for component in components for metric in component.metrics)])
        policy = _policy(plan, phase, run, tokenizer)
        self.shared = Shared(
            run,
            self.spec.name,
            self.spec.steps,
            plan.experiment.seed,
            tokenizer,
            {"policy": policy},
            metrics,
            lambda name, role: _load_phase(plan, run, name, role),
        )
        self.ctx = Context(self.shared)
        self.quiet_steps = 0
        self.best = -math.inf
        self.collected = 0
        self._settle()
        if finished:
            ended = _load_phase(plan, run, self.spec.name, "policy", phase)
            policy.load_tensors({k: v for k, v in ended.tensors().items() if k in policy.tensors()}, self.spec.name)
        else:
            self._restore()

    def _settle(self) -> None:
        """Let components make roles and heads and open data; then weights and state of a checkpoint go on top."""
        s, update = self.shared, self.hooks.update_component
        if update and isinstance(update.config, UpdateConfig):
            s.micro_tokens = update.config.micro_tokens
        if self.phase.head:
            head = self.phase.head.make()
            assert isinstance(head, Head)
            s.roles["policy"].add_head(self.phase.head.instance, head.build, head.reads, (s.seed, self.spec.name))
        by_name = {f"{slot.kind}/{slot.instance}": slot for slot in self.phase.slots}
        for name, component in self.hooks.components.items():
            with blame(by_name[name], "setup"):
                component.setup(self.ctx.bound(by_name[name]))
        for evaluator in self.evaluators:
            evaluator.setup(self.ctx)
        s.settling = False
        if update and isinstance(update.config, UpdateConfig):
            trained = [role for name, role in s.roles.items() if name not in s.derived]
            s.trainer = Trainer(self.ctx, update.config, trained, self.spec.steps)

    def run(self) -> None:
        s, run = self.shared, self.run_
        run.tell("phase_started", phase=self.spec.name, steps=self.spec.steps, done=s.step)
        if s.step == 0 and self.evaluators and not any(row["phase"] == self.spec.name for row in run.rows()):
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
            stop = self.stopping.code if s.step < self.spec.steps else 0
            if stop or (s.step % self.spec.save.every == 0 and s.step < self.spec.steps):
                self._save()
            if stop:
                raise Stopped(
                    f"stopped after step {s.step} of phase '{self.spec.name}', saved",
                    "run the same command to go on",
                    stop,
                )
        self._finish()
        if self.stopping.code and self.phase is not self.plan.phases[-1]:
            raise Stopped(
                f"stopped after phase '{self.spec.name}', saved", "run the same command to go on", self.stopping.code
            )

    def step(self) -> int:
        """One pass through the hooks. Returns the number of tokens the policy chose."""
        ctx, hooks, phase, metrics = self.ctx, self.hooks, self.phase, self.shared.metrics
        with _timed(metrics, "rollout"):
            batch: Rollout = hooks.rollout(ctx)
        if phase.rewards or "recorded_B" in batch.extra:
            with _timed(metrics, "reward"):
                batch = hooks.score(ctx, batch)
                self._watch_signal(batch)
        if phase.advantage and isinstance(batch, Scored):
            with _timed(metrics, "advantage"):
                batch = hooks.advantage(ctx, batch)
        if phase.feedback and isinstance(batch, Scored):
            self._collect(batch)
        if phase.update:
            with _timed(metrics, "update"):
                for name, value in hooks.update(ctx, batch).items():
                    metrics.add(name, value, who=f"'{phase.update.instance}'")
        return self._count(batch)

    def score(self, ctx: Context, rollout: Rollout) -> Scored:
        """The core's answer to hookline_score: ask every named reward, drop unjudged rows, weigh, sum."""
        rewards = self.hooks.rewards
        if not rewards:
            return rollout.scored(
                rollout.extra["recorded_B"].float(), {"recorded": rollout.extra["recorded_B"].float()}
            )
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
        return rollout.scored(total_BT, totals)

    # -- what is watched

    def _count(self, batch: Rollout) -> int:
        metrics, rows, tokens = self.shared.metrics, len(batch), int(batch.mask_BT.sum())
        metrics.add("rows", rows)
        metrics.add("tokens", tokens)
        if rows:
            metrics.add("response_length", tokens / rows, rows)
            sampled = [reason for reason in batch.finish_reason if reason != "recorded"]
            if sampled:
                metrics.add("truncated", sampled.count("length") / len(sampled), len(sampled))
        if isinstance(batch, Scored) and rows:
            metrics.add("reward", self.ctx.mean(batch.reward_B), rows)
            metrics.add("reward_std", float(batch.reward_B.std(correction=0)))
        return tokens

    def _watch_signal(self, scored: Scored) -> None:
        """Rewards that are all equal teach nothing; many such steps in a row end the run."""
        if not self.phase.advantage or not len(scored):
            return
        total_B = (
            torch.stack([w.weight * scored.terms[n] for n, (_, w) in self.hooks.rewards.items()]).sum(0)
            if self.hooks.rewards
            else scored.reward_B
        )
        groups, where = torch.unique(scored.group_B, return_inverse=True)
        if len(groups) < len(scored):
            high = total_B.new_full((len(groups),), -math.inf).scatter_reduce(0, where, total_B, "amax")
            low = total_B.new_full((len(groups),), math.inf).scatter_reduce(0, where, total_B, "amin")
            self.shared.metrics.add("equal_groups", float((high == low).float().mean()))
        self.quiet_steps = self.quiet_steps + 1 if bool((total_B == total_B[0]).all()) and len(scored) > 1 else 0
        if self.quiet_steps >= self.spec.patience:
            raise NumbersError(
                f"no learning signal: in {self.quiet_steps} steps of phase '{self.spec.name}' every reward was {float(total_B[0]):g}",
                "look at the reward and a few answers; `patience` sets how many such steps are borne",
            )

    def _evaluate(self, at_start: bool = False) -> None:
        for evaluator in self.evaluators:
            every, step = evaluator.spec.every, self.shared.step
            if at_start or step == self.spec.steps or (every and step % every == 0):
                with _timed(self.shared.metrics, f"evaluate-{evaluator.spec.name}"):
                    figures, samples = evaluator.run(self.ctx, self.answers)
                for name, value in figures.items():
                    self.shared.metrics.add(f"eval/{evaluator.prefix}{name}", value)
                self.run_.commit_samples(self.spec.name, step, evaluator.spec.name, samples)

    def _collect(self, scored: Scored) -> None:
        entries = []
        for annotator, judgement in self.hooks.judge(self.ctx, scored):
            a, b = judgement.chosen, judgement.rejected
            entries.append(
                {
                    "prompt": scored.prompt_text(a),
                    "chosen": scored.response_text(a),
                    "rejected": scored.response_text(b),
                    "prompt_ids": scored.prompt_ids(a),
                    "chosen_ids": scored.response_ids(a),
                    "rejected_ids": scored.response_ids(b),
                    "samples": [int(scored.sample_B[a]), int(scored.sample_B[b])],
                    "source": annotator,
                    "annotator": judgement.annotator,
                    "record": dict(scored.records[a]),
                    **judgement.detail,
                }
            )
        self.run_.collect(self.spec.name, entries)
        self.collected += len(entries)
        self.shared.metrics.add("judgements", len(entries))

    # -- state

    def _roles_to_save(self) -> dict[str, Role]:
        return {name: role for name, role in self.shared.roles.items() if name not in self.shared.derived}

    def _save(self) -> None:
        s, run = self.shared, self.run_
        folder = run.checkpoint_folder(self.spec.name, s.step)
        run.sync()
        about = {"phase": self.spec.name, "step": s.step, "rows": len(run.rows())}
        with state.write_aside(folder, about) as aside:
            for name, role in self._roles_to_save().items():
                state.save_tree(aside, f"role-{name}", {"tensors": role.tensors(), "version": role.version})
            components = {}
            for name, component in self.hooks.components.items():
                components[name] = component.state_dict()
                state.save_tree(
                    aside, f"component-{name.replace('/', '-')}", components[name], f"'{component.instance}'"
                )
            state.save_tree(aside, "trainer", s.trainer.state_dict() if s.trainer else {})
            frozen = {name: s.roles[name].hash() for name in s.derived}
            counters = {
                "samples": s.samples,
                "quiet_steps": self.quiet_steps,
                "best": self.best,
                "collected": self.collected,
                "frozen": frozen,
            }
            state.save_tree(aside, "core", counters)
        for old in run.checkpoints(self.spec.name)[self.spec.save.keep :]:
            shutil.rmtree(old, ignore_errors=True)

    def _restore(self) -> None:
        s, run = self.shared, self.run_
        before = len(run.notices)
        found = run.newest_checkpoint(self.spec.name)
        for text in run.notices[before:]:
            run.notice(text)
        if found is None:
            last = self.plan.phases.index(self.phase) - 1
            previous = run.finished(self.plan.phases[last].spec.name) if last >= 0 else None
            s.samples = int(previous["samples"]) if previous else 0
            run.cut_back(int(previous["rows"]) if previous else 0)
            run.cut_collected(self.spec.name, 0)
            return
        folder, manifest = found
        for name, role in self._roles_to_save().items():
            saved = state.load_tree(folder, f"role-{name}")
            role.load_tensors(saved["tensors"], str(folder))
            role.version = int(saved["version"])
        for name, component in self.hooks.components.items():
            component.load_state_dict(state.load_tree(folder, f"component-{name.replace('/', '-')}"))
        if s.trainer:
            s.trainer.load_state_dict(state.load_tree(folder, "trainer"))
        counters = state.load_tree(folder, "core")
        for name, expected in counters["frozen"].items():
            if s.roles[name].hash() != expected:
                raise CheckpointError(
                    f"frozen role '{name}' of phase '{self.spec.name}' is not the model it was when the checkpoint was made",
                    "restore phases/ as the run left it",
                )
        s.step, s.samples = int(manifest["step"]), int(counters["samples"])
        self.quiet_steps, self.best, self.collected = counters["quiet_steps"], counters["best"], counters["collected"]
        run.cut_back(int(manifest["rows"]))
        run.cut_collected(self.spec.name, self.collected)

    def _keep_best(self, figures: Mapping[str, float]) -> None:
        name = self.spec.save.best
        if name and figures.get(name, -math.inf) > self.best:
            self.best = figures[name]
            with state.write_aside(
                self.run_.directory / "best" / self.spec.name, {"step": self.shared.step, name: self.best}
            ) as aside:
                self.shared.roles["policy"].save(aside / "model")
        elif name and self.evaluators and self.shared.step == self.spec.steps and self.best == -math.inf:
            raise ExperimentError(
                f"save.best names '{name}', which no evaluation of phase '{self.spec.name}' gives",
                "name one of: " + ", ".join(k for k in figures if k.startswith("eval/")),
            )

    def _finish(self) -> None:
        """The phase's end on disk: model, collected data, hashes. Its checkpoints are then no longer needed."""
        s, run = self.shared, self.run_
        for name in s.derived:
            if s.roles[name].version:
                raise CheckpointError(
                    f"frozen role '{name}' changed during phase '{self.spec.name}'",
                    "freeze it, or make it without frozen=True",
                )
        policy = s.roles["policy"]
        run.sync()
        about = {
            "phase": self.spec.name,
            "steps": s.step,
            "rows": len(run.rows()),
            "samples": s.samples,
            "weights": policy.hash(),
            "adapter": policy.adapter,
            "data": dict(run.about.get("data", {})),
        }
        with state.write_aside(run.phase_folder(self.spec.name), about) as aside:
            policy.save(aside / "model")
            s.tokenizer.save(aside)
            for name, role in self._roles_to_save().items():
                if name != "policy":
                    role.save(aside / "roles" / name)
            collected = run.collecting(self.spec.name)
            if collected.exists():
                shutil.copy(collected, aside / "data.jsonl")
        for folder in run.checkpoints(self.spec.name):
            shutil.rmtree(folder, ignore_errors=True)


def ask_rewards(
    ctx: Context, rewards: Mapping[str, tuple[Component, Any]], rollout: Rollout, answers: asyncio.Runner
) -> dict[str, Term]:
    """Every reward by itself; those that are coroutines wait together."""
    said = {
        name: ask(component, slot, "hookline_reward", {"ctx": ctx, "rollout": rollout})
        for name, (component, slot) in rewards.items()
    }
    late = {name: value for name, value in said.items() if inspect.isawaitable(value)}
    if late:

        async def wait() -> list[Any]:
            async def one(name: str, value: Any) -> Any:
                with blame(rewards[name][1], "hookline_reward"):
                    return await value

            return await asyncio.gather(*(one(name, value) for name, value in late.items()))

        said |= dict(zip(late, answers.run(wait())))
    return {name: check_term(value, rewards[name][1], rollout) for name, value in said.items()}


def _forget_unsaved(plan: Plan, run: Run) -> None:
    """Cut rows back to the newest save, before trackers look: what came after it is made again, bit for bit."""
    rows = 0
    for phase in plan.phases:
        ended = run.finished(phase.spec.name)
        newest = None if ended else run.newest_checkpoint(phase.spec.name)
        saved = ended or (newest and newest[1])
        rows = int(saved["rows"]) if saved else rows
        if ended is None:
            break
    run.cut_back(rows)


# -- models and tokenizer of a run


def _tokenizer(plan: Plan, run: Run) -> Tokenizer:
    folder = run.directory / "tokenizer"
    if folder.exists():
        state.verify(folder)
        return Tokenizer.load(folder)
    spec = plan.experiment.tokenizer
    if spec and spec.on:
        run.data(spec.on)
    made = Tokenizer.make(spec, plan.experiment.model.path, plan.loose)
    with state.write_aside(folder, {}) as aside:
        made.save(aside)
    return Tokenizer.load(folder)


def _policy(plan: Plan, phase: PlannedPhase, run: Run, tokenizer: Tokenizer) -> Role:
    if phase.start:
        return _load_phase(plan, run, phase.start, "policy", phase)
    return models.build_policy(plan.experiment.model, plan.architecture, phase.adapter, tokenizer, plan.experiment.seed)


def _load_phase(plan: Plan, run: Run, name: str, role: str, into: PlannedPhase | None = None) -> Role:
    """The model with which phase `name` ended, as a role; `into` is the phase that goes on training it."""
    ended = next((phase for phase in plan.phases if phase.spec.name == name), None)
    manifest = run.finished(name)
    if ended is None or manifest is None:
        raise ExperimentError(f"phase '{name}' has not ended, so nothing can start from it", "name an earlier phase")
    spec = _merged(plan, into or ended)
    adapter = into.adapter if into else ended.adapter
    return models.load_role(
        role,
        run.phase_folder(name) / "model",
        spec,
        None if into else ended.head,
        adapter,
        bool(manifest["adapter"]),
        plan.experiment.seed,
    )


def _merged(plan: Plan, phase: PlannedPhase) -> Any:
    """The phase's wishes over the experiment's."""
    wishes = phase.spec.model.model_dump(exclude_none=True, include={"dtype", "autocast", "gradient_checkpointing"})
    return plan.experiment.model.model_copy(update=wishes)


# -- time and signals


@contextmanager
def _timed(metrics: MetricLog, part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    metrics.add(f"seconds/{part}", time.perf_counter() - began)


class Stopping:
    """Whether somebody asked the run to stop, and with which exit code it should say so."""

    code = 0


@contextmanager
def stop_signals() -> Iterator[Stopping]:
    """SIGTERM and the first SIGINT let the step finish and save; a second SIGINT interrupts at once."""
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def ask_to_stop(number: int, frame: Any) -> None:
        if number == signal.SIGINT and stopping.code:
            raise KeyboardInterrupt
        stopping.code = 128 + number

    old = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
