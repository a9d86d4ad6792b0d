"""The parts of a phase: its components, models, scope, statistics and trainer, all made before the first step."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hookline.batch.stages import Rollout, Scored
from hookline.contract.component import Component
from hookline.contract.context import Heads
from hookline.contract.engine import Engine
from hookline.contract.fields import UpdateConfig
from hookline.contract.model import Adapter, Head
from hookline.errors import CheckpointError, DataError, ExperimentError, PluginError, a
from hookline.inference.drawing import Drawing
from hookline.loop.context import PhaseContext
from hookline.loop.evaluation import Evaluator
from hookline.loop.hooks import Hooks
from hookline.loop.resources import Resources
from hookline.loop.scope import Training
from hookline.loop.session import Session
from hookline.loop.shares import own_share
from hookline.models import load
from hookline.models.folder import folder_hash
from hookline.models.role import BESIDE_NET, Role, saved_tensors
from hookline.models.roles import Roles
from hookline.models.scores import scores_of
from hookline.plan.plan import PlannedPhase
from hookline.registry.blame import blame
from hookline.registry.closing import close_all
from hookline.registry.slot import Slot
from hookline.runs.figures import MetricLog
from hookline.storage import folders, trees
from hookline.training.cache import StatsCache
from hookline.training.packing import pack
from hookline.training.trainer import Trainer

__all__ = ["Counters", "Phase"]


@dataclass
class Counters:
    """What a phase counts besides its steps and samples."""

    quiet_steps: int = 0
    """Steps in a row in which all compared rewards were equal."""
    rewards_differed: bool = False
    """Whether rewards have differed at any step of this phase."""
    best: float = -math.inf
    """The best value so far of the figure that `save.best` names; larger is better."""
    collected: int = 0
    """Judgements written into the phase's data."""
    watched: float = -math.inf
    """The best value so far of the figure that `stop` names; larger is better."""
    worse: int = 0
    """How often in a row that figure has come without being better."""
    stopped: str = ""
    """Why the phase ended before its last step; empty if it did not."""
    failed: str = ""
    """The first failure of a service that a component asked; empty if there was none."""


class Phase:
    """A phase before its first step: everything is set up, nothing is restored. The caller closes it with `close`."""

    def __init__(
        self,
        session: Session,
        planned: PlannedPhase,
        score: Callable[[PhaseContext, Rollout], Scored],
        finished: bool = False,
    ) -> None:
        """score: the core's answer to hookline_score. finished: the phase has ended; its own model replaces the base model."""
        self.session, self.planned, self.spec, self.finished = session, planned, planned.spec, finished
        seed, name = session.plan.experiment.seed, planned.spec.name
        self.hooks = Hooks(planned, score, lambda values, hook: self.ctx.lend(values, hook))
        self.evaluators = [Evaluator(evaluation) for evaluation in planned.evaluations]
        self.metrics = MetricLog(session.figures.of(name), session.world)
        self.scope = Training(seed, name, self.metrics, session.world)
        self.counters = Counters()
        self.stats = StatsCache()
        policy = _knowing(_policy(session, planned, finished), session)
        self.roles = Roles(policy, (seed, name), self._load, self._load_folder)
        self._resources = Resources(
            run=session.run,
            tokenizer=session.tokenizer,
            training=self.scope,
            steps=self.spec.steps,
            roles=self.roles,
            stats=self.stats,
            rounds=planned.rounds,
            encoder=session.encoder,
            answers=session.answers,
            drawing=Drawing(
                engine_of(planned), session.tokenizer.ends, folder=session.run.directory, rank=session.world.rank, slot=planned.engine
            ),
            world=session.world,
            stopping=session.stopping,
            given=planned.gives,
            advantage_by=planned.advantage_by.instance if planned.advantage_by else "",
        )
        self.ctx = PhaseContext(self._resources)
        self._begun: list[Slot] = []
        try:
            self._settle()
        except BaseException:
            self.close()
            raise

    def _load(self, name: str, role: str, heads: Heads) -> Role:
        """The model with which an earlier phase, or its latest round, ended."""
        return _knowing(load_phase(self.session, self.planned.latest(name), role, heads), self.session)

    def _load_folder(self, path: str, role: str) -> Role:
        """The model of a folder that a component names."""
        plan, session = self.session.plan, self.session
        session.run.pin(f"model:{path}", folder_hash(path))
        family, spec = load.family_of(plan.family), plan.model_of(self.planned)
        made = load.load_folder(role, path, spec, family, session.world.device)
        tokenizer, found = session.encoder(path).tokenizer, scores_of(path)
        made.knows(tokenizer.vocabulary, tokenizer.gaps)
        last = session.encoder(path).encode_text({"prompt": "a"}, "b")[-1] if found else None
        if found and found.pad == last:
            session.run.notice(
                f"{path}: texts end with {tokenizer.inner.id_to_token(last)}, which config.json names as padding too. "
                "transformers reads their score one token early, before it; here it is read at the last token"
            )
        return made

    @property
    def trainer(self) -> Trainer | None:
        """The trainer, which changes the weights; None if the phase has no update with a learning rate."""
        return self._resources.trainer

    def _settle(self) -> None:
        """Let components make roles and heads and open data; a checkpoint's weights and state are loaded afterwards."""
        update = self.planned.update
        config = update.config if update else None
        if isinstance(config, UpdateConfig):
            self.stats.micro_tokens = self._resources.drawing.micro_tokens = config.micro_tokens
        if self.planned.head:
            head = self.planned.head.component
            assert isinstance(head, Head)
            policy, seed = self.roles["policy"], (self.scope.seed, self.spec.name)
            policy.add_head(self.planned.head.instance, head.build, head.reads, seed)
        own_data = list(self.planned.rollout.every())
        for _, slot in self.stateful():
            self._begun.append(slot)
            try:
                with blame(slot, "setup"):
                    slot.component.setup(self.ctx.bound(slot))
            except DataError as err:
                if not self.finished or slot not in own_data:
                    raise
                self._begun.pop()
                self.session.run.notice(f"phase '{self.spec.name}' is opened without its training data: {err.message}")
        self.roles.settling = False
        if isinstance(config, UpdateConfig):
            if not self.finished:
                pack(self.roles.values(), config.packing, self.session.run.notice)
            trained = list(self.roles.kept.values())
            self._resources.trainer = Trainer(self.ctx, self.ctx.role_named, config, trained, self.spec.steps)
        self.frozen = self.roles.watch_frozen()
        if self.finished:
            return
        with tempfile.TemporaryDirectory() as trial:  # a state that cannot be saved fails now, not at the first save
            self.save_components(Path(trial), self.component_states())

    @property
    def ended(self) -> bool:
        """Whether the phase has taken its last step."""
        return bool(self.counters.stopped) or self.scope.step >= self.spec.steps

    def begin_step(self) -> None:
        """Forget everything about the last step's rows."""
        self.stats.clear()
        self.scope.asked.clear()
        self._resources.begun += 1

    def watch_closely(self) -> None:
        """Compare the contents of what hooks are lent, as in the phase's first steps."""
        self._resources.begun = 0

    def stateful(self) -> Iterator[tuple[str, Slot]]:
        """(file name of its state, slot) of every component, in the order of setup: nested ones before their owner."""
        measured = (slot for evaluator in self.evaluators for slot in evaluator.slots)
        for slot in (*self.planned.beside, *self.planned.slots, *measured):
            for inner in reversed(list(slot.every())):
                yield inner.label.replace("/", "-"), inner

    def component_states(self) -> dict[str, tuple[Slot, dict[str, Any]]]:
        """File name → the component and its state on this rank."""
        found = {}
        for name, slot in self.stateful():
            with blame(slot, "state_dict"):
                saved = slot.component.state_dict()
                if not isinstance(saved, dict):
                    raise PluginError(f"state_dict returned {a(type(saved).__name__)}", "return a dict with text keys")
            found[name] = slot, saved
        return found

    def save_components(self, folder: Path, states: Mapping[str, tuple[Slot, dict[str, Any]]]) -> None:
        """Write every component's state. Raises PluginError for a state that cannot be saved or loaded."""
        for name, (slot, saved) in states.items():
            component = slot.component
            full: Exception | None = None
            with blame(slot, "state_dict"):
                try:
                    trees.save_tree(folder, f"component-{name}", saved, f"'{component.instance}'")
                except folders.WRITE_ERRORS as err:  # the disk's fault, not the component's
                    full = err
                if saved and type(component).load_state_dict is Component.load_state_dict:
                    raise PluginError("the component saves state but cannot load it", "define load_state_dict")
            if full is not None:
                raise full

    def load_components(self, folder: Path, dealt: Mapping[str, Any]) -> None:
        """Load every component's state from a checkpoint. dealt: which groups each rank had, as `shares.gathered` says.

        A stateless component may be missing there, if the release that wrote the checkpoint did not have its kind yet.
        """
        for name, slot in self.stateful():
            if not (folder / f"component-{name}.json").exists() and not slot.component.state_dict():
                continue
            saved = own_share(
                trees.load_tree(folder, f"component-{name}"), dealt.get(name, {}), slot, self.session.world
            )
            with blame(slot, "load_state_dict"):
                slot.component.load_state_dict(saved)

    def load_end(self) -> None:
        """Load the weights with which the phase ended."""
        folder = self.session.run.phase_folder(self.spec.name) / "model"
        policy, tensors = self.roles["policy"], saved_tensors(folder)
        mine = policy.tensors()  # an update that is no longer installed has not made its heads
        kept = {key: value for key, value in tensors.items() if key in mine or not key.startswith(BESIDE_NET)}
        policy.load_tensors(kept, str(folder))
        manifest = self.session.run.finished(self.spec.name) or {}
        self.scope.step = int(manifest.get("steps", self.spec.steps))

    def close(self) -> None:
        """Close every component whose setup began, the last one first. Errors of a component become notices."""
        close_all(self._begun, self.session.answers, self.session.run.notice)


def _knowing(role: Role, session: Session) -> Role:
    """The role, told which of its ids are tokens."""
    role.knows(session.tokenizer.vocabulary, session.tokenizer.gaps)
    return role


def _policy(session: Session, phase: PlannedPhase, finished: bool) -> Role:
    plan, run = session.plan, session.run
    if phase.start:
        return load_phase(session, phase.start, "policy", into=phase)
    _pin_adapter(session, phase)
    if path := plan.experiment.model.path:
        try:
            for folder in filter(None, (path, plan.experiment.model.merge)):
                run.pin(f"model:{folder}", folder_hash(folder))
        except (CheckpointError, ExperimentError) as err:
            if not finished:
                raise
            run.notice(
                f"phase '{phase.spec.name}' is opened without the model that it began with ({err.message}); figures that "
                "compare with that model compare with the phase's end"
            )
            return load_phase(session, phase.spec.name, "policy", into=phase)
    return load.build_policy(
        plan.experiment.model,
        plan.architecture,
        phase.adapter,
        session.tokenizer,
        plan.experiment.seed,
        load.family_of(plan.family),
        session.world.device,
    )


def _pin_adapter(session: Session, phase: PlannedPhase) -> None:
    """Pin the folder with which the adapter of a phase begins."""
    made = phase.adapter.component if phase.adapter else None
    if isinstance(made, Adapter) and made.folder:
        session.run.pin(f"model:{made.folder}", folder_hash(made.folder))


def load_phase(
    session: Session, name: str, role: str, heads: Heads | None = None, into: PlannedPhase | None = None
) -> Role:
    """The model with which phase `name` ended, as a role; `into` is the phase that continues to train it."""
    plan, run = session.plan, session.run
    ended = next((phase for phase in plan.phases if phase.spec.name == name), None)
    manifest = run.finished(name)
    if ended is None or manifest is None:
        raise ExperimentError(f"phase '{name}' has not ended, so nothing can start from it", "name an earlier phase")
    if into and not manifest["adapter"]:
        _pin_adapter(session, into)
    return load.load_role(
        role,
        run.phase_folder(name) / "model",
        plan.model_of(into or ended),
        None if into else ended.head,
        into.adapter if into else ended.adapter,
        bool(manifest["adapter"]),
        plan.experiment.seed,
        heads or {},
        family=load.family_of(plan.family),
        device=session.world.device,
    )


def engine_of(phase: PlannedPhase) -> Engine:
    """The engine that draws answers in a phase."""
    made = phase.engine.component
    assert isinstance(made, Engine)
    return made
