"""A component in the harness: a real phase around the component, on a model of two layers and thirty words.

Plan, hooks, engine and checkpoints are those of a run; only the neighbours are stand-ins.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from hookline.batch.stages import Batch, Rollout, Term
from hookline.config import experiment
from hookline.contract.check import hook_methods
from hookline.contract.component import Component
from hookline.contract.fields import UpdateConfig
from hookline.contract.kinds import KINDS
from hookline.contract.loss import MicroBatch
from hookline.contract.metrics import Metric
from hookline.data import names
from hookline.data.tasks import task
from hookline.errors import PluginError
from hookline.loop.api import open_run
from hookline.loop.checks import check_term
from hookline.loop.hooks import ask
from hookline.loop.loop import PhaseLoop
from hookline.loop.phase import Counters
from hookline.loop.session import Session
from hookline.plan.planner import make_plan
from hookline.registry import offers
from hookline.registry.offers import Offer
from hookline.runs.figures import MetricLog
from hookline.storage.journal import Journal
from hookline.testing.asking import Asking, Service
from hookline.testing.surroundings import Setting, any_completion, earlier, neighbours, stand_in_offers
from hookline.training.trainer import Trainer
from hookline.world.signals import Stopping
from hookline.world.world import World

if TYPE_CHECKING:
    from hookline.testing.subject import Subject

__all__ = ["Gradient", "Harness"]

STEPS = 8


@dataclass
class Gradient:
    """The gradients that one call of an update computed for the weights."""

    steps: list[dict[str, Tensor]] = field(default_factory=list)
    """Per optimiser step: role/parameter → gradient, in the parameter's shape."""
    losses: list[float] = field(default_factory=list)
    """The loss of each optimiser step."""

    def flat(self, role: str = "", first: bool = False) -> Tensor:
        """All gradients, or those of one role, as one vector [N]; of every optimiser step in order, or of the first."""
        steps = self.steps[:1] if first else self.steps
        parts = [g.reshape(-1) for step in steps for name, g in sorted(step.items()) if name.startswith(role)]
        return torch.cat(parts) if parts else torch.zeros(0)


class Lenient(MetricLog):
    """Notes a figure that no component declared, instead of ending the run: a separate law reports the figure."""

    undeclared: set[str]

    def find(self, name: str, who: str) -> Metric:
        try:
            return super().find(name, who)
        except PluginError:
            self.undeclared.add(name)
            return Metric(name, "undeclared")


class Harness:
    """One phase that contains the component. The phase is at its start until `step()`; `restore()` resets it."""

    def __init__(
        self,
        subject: Subject,
        setting: Setting,
        options: Mapping[str, Any],
        folder: Path,
        world: World | None = None,
    ) -> None:
        """world: the processes that open the harness together."""
        self.subject = subject
        """The component under test."""
        self.setting = setting
        """The data, phases and neighbours around it."""
        self.folder = folder
        """The run's directory."""
        self.options = {**setting.filled, **setting.named, **setting.phases, **subject.options, **options}
        """The component's options, including those that the setting fills in."""
        loose = [*stand_in_offers(), *([subject.offer] if subject.offer.path else [])]
        parsed, document = experiment.load(self._experiment(loose))
        self._planned = functools.partial(make_plan, parsed, document, loose)
        self.plan = self._planned()
        """The resolved experiment."""
        self.run = open_run(folder, self.plan, world=world)
        """The run in `folder`."""
        self.service = Service()
        """What happens to the questions that components ask through `ctx.each`."""
        self.runner = asyncio.Runner()
        """The event loop that runs coroutines which hooks return."""
        self._opened: list[PhaseLoop] = []
        try:
            session = Session(self.plan, self.run, self.runner)
            self.tokenizer = session.tokenizer
            """The run's tokenizer: one token per word."""
            for phase in self.plan.phases[:-1]:
                with PhaseLoop(session, phase) as loop:
                    loop.run(Stopping())
            self.loop = self._loop()
            """The phase: `loop.ctx`, `loop.hooks`, `loop.phase.roles`."""
        except BaseException:
            self.close()
            raise
        self._keep()

    def close(self) -> None:
        """Close every component, the run and the event loop."""
        for loop in self._opened:
            loop.close()
        self.run.close()
        self.runner.close()

    # -- the experiment and the component

    def _experiment(self, loose: Sequence[Offer]) -> dict[str, Any]:
        wishes = {"epochs": self.setting.epochs, "minibatches": 1, "grad_clip": 1e9, "lr": 1e-2}
        s = self.subject
        if s.kind == "update" and issubclass(s.cls.Config, UpdateConfig):
            self.options = {**wishes, **self.options}
        own = {"use": s.offer.name if s.offer.path else f"{s.offer.distribution}:{s.offer.name}", **self.options}
        probe = s.cls(s.cls.Config.model_validate(self.options))
        parts = neighbours(s.kind, s.cls, probe, own, self.setting)
        if self.setting.groups:
            parts["rollout"] = sized(parts["rollout"], self.setting.groups, loose)
        head = {"model": {"head": self.setting.head}} if self.setting.head else {}
        phases = [{"name": "harness", "steps": STEPS, "patience": 1000, **parts, **head}]
        if self.setting.phases:
            phases.insert(0, earlier(self.setting.rows))
        words = self.setting.rows
        if names.is_task(words):
            words = next(
                (f"{words}/{split}" for split in task(words).splits if any_completion(f"{words}/{split}")), words
            )
        return {
            "name": "harness",
            "seed": 11,
            "tokenizer": {"train": "words", "on": words, "vocabulary": 100_000},
            "model": {"build": "testing-model"},
            "phases": phases,
            "trackers": [],
        }

    def _loop(self) -> PhaseLoop:
        plan = self._planned()
        loop = PhaseLoop(Session(plan, self.run, self.runner), plan.phases[-1])
        self._opened.append(loop)
        metrics = loop.phase.metrics
        metrics.__class__ = Lenient
        cast(Lenient, metrics).undeclared = set()
        loop.ctx.__class__ = Asking
        cast(Asking, loop.ctx).service = self.service
        return loop

    def resumed(self) -> PhaseLoop:
        """The phase as a new process would load it: from its newest checkpoint."""
        return self._loop()

    @property
    def component(self) -> Component:
        """The phase's own instance of the component."""
        return cast(Component, self.slot.component)

    @property
    def slot(self) -> Any:
        """The component's entry in the plan: offer, class, config, and what the component needs, gives and logs."""
        return next(slot for slot in self.loop.planned.every if slot.cls is self.subject.cls)

    @property
    def undeclared(self) -> set[str]:
        """Figures that were logged without a `Metric`."""
        return cast(Lenient, self.loop.phase.metrics).undeclared

    # -- the state of the phase

    def _keep(self) -> None:
        """Store the state of the phase, so that `restore` can bring it back."""
        loop, phase = self.loop, self.loop.phase
        shared: list[Any] = [loop, phase, phase.scope, phase.roles, loop.session, loop.session.tokenizer]
        shared += [self.run, self.plan, loop.ctx, loop.ctx._resources, *loop.hooks.components.values()]
        for role in phase.roles.values():
            shared += [role, role.net, role.heads, *role.net.modules(), *role.parameters().values()]
        self._memo = {id(thing): thing for thing in shared}
        self._weights = {name: {n: p.clone() for n, p in role.tensors().items()} for name, role in phase.roles.items()}
        self._versions = {name: role.version for name, role in phase.roles.items()}
        self._states = {name: self._copied(vars(c)) for name, c in loop.hooks.components.items()}
        self._counters = (phase.scope.step, phase.scope.samples)
        self._trainer = copy.deepcopy(phase.trainer.state_dict()) if phase.trainer else {}

    def _copied(self, values: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for name, value in values.items():
            try:
                found[name] = copy.deepcopy(value, dict(self._memo))
            except Exception:  # a value that cannot be copied is kept as it is
                found[name] = value
        return found

    def forget(self, keep: int = 0) -> None:
        """Drop the answers of `ctx.once` and `ctx.each` from the run's journal, except the first ones."""
        journal = self.run.journal
        if len(journal) > keep:
            kept = journal.path.read_bytes().splitlines(keepends=True)[:keep]
            journal.path.write_bytes(b"".join(kept))
            self.run.journal = Journal(journal.path)

    def restore(self) -> None:
        """Return to the start: weights, optimiser, counters, journal, and the state of every component."""
        phase = self.loop.phase
        self.forget()
        with torch.no_grad():
            for name, role in phase.roles.items():
                for n, tensor in role.tensors().items():
                    tensor.copy_(self._weights[name][n])
                role.version = self._versions[name]
        for name, component in self.loop.hooks.components.items():
            vars(component).clear()
            vars(component).update(self._copied(self._states[name]))
        phase.scope.step, phase.scope.samples = self._counters
        phase.begin_step()
        phase.watch_closely()
        phase.metrics.collect()
        phase.counters = Counters()
        if phase.trainer:
            for part in phase.trainer.optimiser.parts:
                part.state.clear()
            phase.trainer.load_state_dict(self._trainer)

    def step(self, count: int = 1, loop: PhaseLoop | None = None) -> dict[str, float]:
        """Take real steps; returns the figures of the last step, by name."""
        loop = loop or self.loop
        figures: dict[str, float] = {}
        for _ in range(count):
            loop.step()
            loop.phase.scope.step += 1
            figures, _ = loop.phase.metrics.collect()
        return figures

    def weights(self, loop: PhaseLoop | None = None) -> dict[str, Tensor]:
        """A copy of every role's tensors: role/parameter → values, in the parameter's shape."""
        roles = (loop or self.loop).phase.roles
        return {f"{name}/{n}": p.clone() for name, role in roles.items() for n, p in role.tensors().items()}

    def lent(self, stage: str) -> Batch:
        """The batch that a wrapper is given: what `batch` returns without the component, if the component is a wrapper."""
        name = f"{self.slot.kind}/{self.slot.instance}"
        if not KINDS[self.slot.kind].around:
            return self.batch(stage)
        manager = self.loop.hooks.manager
        taken_out = manager.unregister(name=name)
        try:
            return self.batch(stage)
        finally:
            manager.register(taken_out, name)

    def batch(self, stage: str) -> Batch:
        """The batch that the phase's hooks make from the start up to a stage: `rollout`, `score` or `advantage`."""
        hooks, ctx = self.loop.hooks, self.loop.ctx
        self.restore()
        batch: Batch = hooks.rollout(ctx)
        if stage != "rollout" and (self.loop.planned.rewards or {"recorded_B", "recorded_BT"} & batch.extra.keys()):
            batch = hooks.score(ctx, cast(Rollout, batch))
            if stage == "advantage" and self.loop.planned.advantage_by:
                batch = hooks.advantage(ctx, batch)
        return batch

    # -- calling the component itself

    def ask(self, hook: str, **arguments: Any) -> Any:
        """The component's answer to a hook, from the start, called as the engine calls it."""
        self.restore()
        return self.again(hook, **arguments)

    def again(self, hook: str, **arguments: Any) -> Any:
        """The component's answer to a hook, from where it is: the component remembers its earlier answers."""
        answer = ask(self.component, self.slot, hook, {"ctx": self.loop.ctx, **arguments}, self.loop.ctx.lend)
        return self.runner.run(waited(answer)) if inspect.isawaitable(answer) else answer

    def term(self, rollout: Batch, fresh: bool = True) -> Term:
        """The answer of a reward under test, checked as the core checks it: a value per row or token, and `ok_B` [B].

        fresh: whether the phase is reset to its start first.
        """
        answer = (self.ask if fresh else self.again)("hookline_reward", rollout=rollout)
        return check_term(answer, self.slot, cast(Rollout, rollout))

    def around(self, hook: str, inner: Batch, **arguments: Any) -> Any:
        """What the component returns when its wrapper of a hook receives the answer `inner`, from the start."""
        self.restore()
        method = getattr(self.component, hook)
        given = {"ctx": self.loop.ctx.bound(self.slot), **arguments}
        generator = method(**{name: given[name] for name in inspect.signature(method).parameters})
        next(generator)
        try:
            generator.send(inner)
        except StopIteration as stop:
            return stop.value
        raise PluginError(f"{hook} yields twice", "a wrapper yields once, then returns the result")

    @property
    def wraps(self) -> list[str]:
        """The hooks that the component wraps."""
        found = hook_methods(self.subject.cls)
        return [name for name, options in found.items() if options.get("wrapper")]

    # -- gradients

    def gradient(self, batch: Batch, micro_tokens: int = 1 << 20, away: float | Mapping[str, Tensor] = 0.0) -> Gradient:
        """The gradients that the update computes on a batch, from the start; no weight is changed.

        away: how far the weights have moved in the second epoch; see `moved`.
        """
        self.restore()
        phase = self.loop.phase
        trainer = phase.trainer
        if trainer is None:
            return Gradient()
        found = Gradient()
        kept = trainer.config, phase.stats.micro_tokens

        def note(share: float) -> float:
            found.steps.append(
                {
                    name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                    for name, p in trainer.parameters.items()
                }
            )
            return float(trainer.config.lr * share)

        def total_loss() -> float:
            return phase.metrics._values.get("loss", (0.0, 0.0))[0]

        def step(mini: Batch, loss: Callable[[MicroBatch[Any]], Any], unit: str) -> None:
            later = bool(found.steps) or trainer.config.epochs == 1
            before = total_loss()
            with self.moved(away if later else 0.0):
                Trainer._step(trainer, mini, loss, unit)
            found.losses.append(total_loss() - before)

        trainer.config = trainer.config.model_copy(update={"micro_tokens": micro_tokens})
        phase.stats.micro_tokens = micro_tokens
        vars(trainer.optimiser)["step"], vars(trainer)["_step"] = note, step
        try:
            phase.metrics.collect()
            self.loop.hooks.update(self.loop.ctx, batch)
            phase.metrics.collect()
        finally:
            trainer.config, phase.stats.micro_tokens = kept
            del vars(trainer.optimiser)["step"], vars(trainer)["_step"]
        return found

    @contextlib.contextmanager
    def moved(self, by: float | Mapping[str, Tensor]) -> Iterator[None]:
        """In the `with` block, the trained weights are moved: by noise of this size, or along given directions."""
        if by == 0.0:
            yield
            return
        trainer = self.loop.phase.trainer
        assert trainer is not None
        generator = torch.Generator().manual_seed(5)
        old = {name: p.detach().clone() for name, p in trainer.parameters.items()}
        with torch.no_grad():
            for name, p in sorted(trainer.parameters.items()):
                p.add_(by[name] if isinstance(by, Mapping) else by * torch.randn(p.shape, generator=generator))
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in trainer.parameters.items():
                    p.copy_(old[name])


def sized(rollout: str | Mapping[str, Any], groups: int, loose: Sequence[Offer]) -> dict[str, Any]:
    """A rollout that takes `groups` prompts per step, if it has the option `rows`."""
    use = {"use": rollout} if isinstance(rollout, str) else dict(rollout)
    found = offers.find("rollout", use["use"], tuple(loose))
    return {**use, "rows": groups} if "rows" in found.load().Config.model_fields else use


async def waited(answer: Any) -> Any:
    return await answer
