"""What a phase is made of, and how it is kept: roles, components and trainer, saved, restored and finished."""

from __future__ import annotations

import asyncio
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hookline.batch.stages import Rollout, Scored
from hookline.contract.component import Component
from hookline.contract.engine import Engine
from hookline.contract.fields import UpdateConfig
from hookline.contract.metrics import CORE_METRICS, MetricLog
from hookline.contract.model import Head
from hookline.data.tokenizer import Tokenizer
from hookline.errors import CheckpointError, ExperimentError, PluginError
from hookline.inference.drawing import Drawing
from hookline.loop import guards
from hookline.loop.context import Context, Shared
from hookline.loop.evaluation import Evaluator
from hookline.loop.hooks import Hooks, blame
from hookline.models import load
from hookline.models.folder import folder_hash
from hookline.models.role import Role
from hookline.plan.plan import Plan, PlannedPhase
from hookline.registry.slot import Slot
from hookline.runs.run import Run
from hookline.storage import folders, trees
from hookline.training.trainer import Trainer
from hookline.world import devices
from hookline.world.world import World

__all__ = ["PhaseState", "tokenizer_of"]


Heads = Mapping[str, Callable[[int], torch.nn.Module]]


class PhaseState:
    """A phase at its start, at its newest whole checkpoint, or at its end."""

    def __init__(
        self,
        plan: Plan,
        phase: PlannedPhase,
        run: Run,
        tokenizer: Tokenizer,
        answers: asyncio.Runner,
        finished: bool = False,
    ) -> None:
        """finished: the phase is over and only looked at, with the weights it ended with."""
        self.plan, self.phase, self.spec, self.run_, self.answers = plan, phase, phase.spec, run, answers
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
            lambda name, role, heads: load_phase(plan, run, name, role, heads=heads),
            answers,
            Drawing(engine_of(phase), tokenizer.eos),
            World(device=devices.resolve(plan.experiment.device)),
        )
        self.shared.given = frozenset(g for c in self.hooks.components.values() for g in c.gives)
        self.shared.advantage_by = phase.advantage_by.instance if phase.advantage_by else ""
        self.ctx = Context(self.shared)
        self.signal = guards.Signal()
        self.best = -math.inf
        self.collected = 0
        self._settle()
        if finished:
            folder = run.phase_folder(self.spec.name) / "model"
            policy.load_tensors(trees.load_tree(folder, "weights"), str(folder))
            self.shared.step = self.spec.steps
        else:
            self._restore()

    def _settle(self) -> None:
        """Let components make roles and heads and open data; then weights and state of a checkpoint go on top."""
        s, update = self.shared, self.hooks.update_component
        if update and isinstance(update.config, UpdateConfig):
            s.micro_tokens = s.drawing.micro_tokens = update.config.micro_tokens
        if self.phase.head:
            head = self.phase.head.component
            assert isinstance(head, Head)
            s.roles["policy"].add_head(self.phase.head.instance, head.build, head.reads, (s.seed, self.spec.name))
        self.by_name = {part.label: part for slot in self.phase.slots for part in slot.every()}
        for name, component in self.hooks.components.items():
            with blame(self.by_name[name], "setup"):
                component.setup(self.ctx.bound(self.by_name[name]))
        for evaluator in self.evaluators:
            evaluator.setup(self.ctx)
        with blame(self.phase.engine, "setup"):
            s.drawing.engine.setup(self.ctx.bound(self.phase.engine))
        s.settling = False
        if update and isinstance(update.config, UpdateConfig):
            trained = [role for name, role in s.roles.items() if name not in s.derived]
            s.trainer = Trainer(self.ctx, update.config, trained, self.spec.steps)
        self.frozen = {name: s.roles[name].hash() for name in s.derived}
        with tempfile.TemporaryDirectory() as trial:  # what cannot be saved is known now, not at the first save
            self._save_components(Path(trial))

    def score(self, ctx: Context, rollout: Rollout) -> Scored:
        """The core's answer to hookline_score; the loop has it."""
        raise NotImplementedError

    def _roles_to_save(self) -> dict[str, Role]:
        return {name: role for name, role in self.shared.roles.items() if name not in self.shared.derived}

    def _stateful(self) -> Iterator[tuple[str, Component, Slot]]:
        """Everything whose state is kept, evaluations' components among it, under phase/kind/instance."""
        for name, component in self.hooks.components.items():
            yield name.replace("/", "-"), component, self.by_name[name]
        for evaluator in self.evaluators:
            for slot in evaluator.planned.every:
                yield slot.label.replace("/", "-"), slot.component, slot

    def _save_components(self, folder: Path) -> None:
        for name, component, slot in self._stateful():
            full: Exception | None = None
            with blame(slot, "state_dict"):
                saved = component.state_dict()
                if not isinstance(saved, dict):
                    raise PluginError(f"state_dict returned a {type(saved).__name__}", "return a dict with text keys")
                try:
                    trees.save_tree(folder, f"component-{name}", saved, f"'{component.instance}'")
                except folders.WRITE_ERRORS as err:  # the disk's fault, not the component's
                    full = err
                if saved and type(component).load_state_dict is Component.load_state_dict:
                    raise PluginError("it saves state but cannot load it", "define load_state_dict")
            if full is not None:
                raise full

    def _save(self) -> None:
        s, run = self.shared, self.run_
        folder = run.checkpoint_folder(self.spec.name, s.step)
        run.sync()
        about = {"phase": self.spec.name, "step": s.step, "rows": len(run.rows())}
        with folders.write_aside(folder, about) as aside:
            for name, role in self._roles_to_save().items():
                trees.save_tree(aside, f"role-{name}", {"tensors": role.tensors(), "version": role.version})
            self._save_components(aside)
            trees.save_tree(aside, "trainer", s.trainer.state_dict() if s.trainer else {})
            self._check_frozen()
            counters = {
                "samples": s.samples,
                "quiet_steps": self.signal.quiet,
                "rewards_differed": self.signal.seen,
                "best": self.best,
                "collected": self.collected,
                "frozen": self.frozen,
            }
            trees.save_tree(aside, "core", counters)
        # newer ones are damaged or of a branch that was given up: they must not push out the one just made
        older = [other for other in run.checkpoints(self.spec.name) if other.name < folder.name]
        newer = [other for other in run.checkpoints(self.spec.name) if other.name > folder.name]
        for old in (*newer, *older[self.spec.save.keep - 1 :]):
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
            saved = trees.load_tree(folder, f"role-{name}")
            role.load_tensors(saved["tensors"], str(folder))
            role.version = int(saved["version"])
        for name, component, slot in self._stateful():
            saved = trees.load_tree(folder, f"component-{name}")
            with blame(slot, "load_state_dict"):
                component.load_state_dict(saved)
        if s.trainer:
            s.trainer.load_state_dict(trees.load_tree(folder, "trainer"))
        counters = trees.load_tree(folder, "core")
        for name, expected in counters["frozen"].items():
            if self.frozen[name] != expected:
                raise CheckpointError(
                    f"frozen role '{name}' of phase '{self.spec.name}' is not the model it was when the checkpoint was made",
                    "restore phases/ as the run left it",
                )
        s.step, s.samples = int(manifest["step"]), int(counters["samples"])
        self.signal = guards.Signal(counters["quiet_steps"], counters["rewards_differed"])
        self.best, self.collected = counters["best"], counters["collected"]
        run.cut_back(int(manifest["rows"]))
        run.cut_collected(self.spec.name, self.collected)

    def _check_frozen(self) -> None:
        """What was made to stay as it is has stayed."""
        for name, expected in self.frozen.items():
            if self.shared.roles[name].hash() != expected:
                raise PluginError(
                    f"frozen role '{name}' changed during phase '{self.spec.name}': a plugin wrote into its weights",
                    "make it without frozen=True, or leave it alone",
                )

    def _keep_best(self, figures: Mapping[str, float]) -> None:
        best = self.spec.save.best
        if best is None:
            return
        value = figures.get(best.figure, math.nan)
        worth = -value if best.lowest else value
        if worth > self.best:
            self.best = worth
            about = {"step": self.shared.step, best.figure: value}
            with folders.write_aside(self.run_.directory / "best" / self.spec.name, about) as aside:
                self.shared.roles["policy"].save(aside / "model")
        elif self.shared.step == self.spec.steps and self.best == -math.inf:
            self.run_.notice(
                f"save.best: '{best.figure}' was no number in phase '{self.spec.name}', so nothing was kept"
            )

    def _finish(self) -> None:
        """The phase's end on disk: model, collected data, hashes. Its checkpoints are then no longer needed."""
        s, run = self.shared, self.run_
        self._check_frozen()
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
        with folders.write_aside(run.phase_folder(self.spec.name), about) as aside:
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


def tokenizer_of(plan: Plan, run: Run) -> Tokenizer:
    folder = run.directory / "tokenizer"
    if folder.exists():
        folders.verify(folder)
        return Tokenizer.load(folder)
    spec = plan.experiment.tokenizer
    source = run.data(spec.on) if spec and spec.on else None
    made = Tokenizer.make(spec, plan.experiment.model.path, source)
    run.keep_data()
    with folders.write_aside(folder, {}) as aside:
        made.save(aside)
    return Tokenizer.load(folder)


def _policy(plan: Plan, phase: PlannedPhase, run: Run, tokenizer: Tokenizer) -> Role:
    if phase.start:
        return load_phase(plan, run, phase.start, "policy", phase)
    if plan.experiment.model.path:
        run.pin(f"model:{plan.experiment.model.path}", folder_hash(plan.experiment.model.path))
    return load.build_policy(
        plan.experiment.model,
        plan.architecture,
        phase.adapter,
        tokenizer,
        plan.experiment.seed,
        load.family_of(plan.family),
        devices.resolve(plan.experiment.device),
    )


def load_phase(
    plan: Plan, run: Run, name: str, role: str, into: PlannedPhase | None = None, heads: Heads | None = None
) -> Role:
    """The model with which phase `name` ended, as a role; `into` is the phase that goes on training it."""
    ended = next((phase for phase in plan.phases if phase.spec.name == name), None)
    manifest = run.finished(name)
    if ended is None or manifest is None:
        raise ExperimentError(f"phase '{name}' has not ended, so nothing can start from it", "name an earlier phase")
    spec = wishes_of(plan, into or ended)
    adapter = into.adapter if into else ended.adapter
    return load.load_role(
        role,
        run.phase_folder(name) / "model",
        spec,
        None if into else ended.head,
        adapter,
        bool(manifest["adapter"]),
        plan.experiment.seed,
        heads or {},
        family=load.family_of(plan.family),
        device=devices.resolve(plan.experiment.device),
    )


def engine_of(phase: PlannedPhase) -> Engine:
    """What draws in a phase."""
    made = phase.engine.component
    assert isinstance(made, Engine)
    return made


def wishes_of(plan: Plan, phase: PlannedPhase) -> Any:
    """The phase's wishes over the experiment's."""
    wishes = phase.spec.model.model_dump(exclude_none=True, include={"dtype", "autocast", "gradient_checkpointing"})
    return plan.experiment.model.model_copy(update=wishes)
