"""A component in the harness: a real phase around it, on a model of two layers and thirty words.

Plan, hooks, engine and checkpoints are those of a run; only the neighbours are stand-ins. What a component `needs` and no
stand-in gives is looked for among the components on offer.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from torch import Tensor

from hookline.batch.stages import Advantaged, Batch, Rollout, Scored
from hookline.config import experiment
from hookline.contract.check import check_class, hook_methods, kind_of
from hookline.contract.component import Component
from hookline.contract.fields import UpdateConfig, marked
from hookline.contract.kinds import KINDS, of_phase
from hookline.contract.loss import MicroBatch
from hookline.contract.metrics import Metric
from hookline.contract.model import Head
from hookline.data import names, sources
from hookline.data.tasks import task
from hookline.errors import ExperimentError, HooklineError, PluginError, nearest
from hookline.loop.api import open_run
from hookline.loop.hooks import ask
from hookline.loop.loop import PhaseLoop
from hookline.loop.phase import Counters
from hookline.loop.session import Session
from hookline.loop.signals import Stopping
from hookline.plan.fit import of_a_phase
from hookline.plan.planner import make_plan
from hookline.registry import offers
from hookline.registry.offers import Offer
from hookline.runs.figures import MetricLog
from hookline.testing import stand_ins
from hookline.testing.stand_ins import STAND_INS
from hookline.training.trainer import Trainer

__all__ = ["Gradient", "Harness", "Subject"]


STEPS = 8
STAGES = {"rollout": Rollout, "score": Scored, "advantage": Advantaged}
MAY_GIVE = tuple(kind.name for kind in of_phase() if kind.in_loop and kind.name != "feedback")
"""The kinds among which the harness looks for what a component needs; judgements come from an earlier phase."""


@dataclass(frozen=True)
class Handed(Offer):
    """A class given directly instead of by name."""

    cls: Any = None

    def load(self) -> Any:
        return self.cls


def stand_in_offers() -> list[Offer]:
    about = {"distribution": "hookline.testing", "version": "", "path": str(Path(stand_ins.__file__))}
    return [
        Handed(kind, name, f"{cls.__module__}:{cls.__qualname__}", **about, cls=cls)  # type: ignore[arg-type]
        for name, (kind, cls) in STAND_INS.items()
    ]


def offer_of(cls: type[Component]) -> Offer:
    """The offer behind a class: the one that is installed, or one made up for a class from anywhere."""
    target = f"{cls.__module__}:{cls.__qualname__}"
    kind = kind_of(cls)
    found = next((o for o in offers.offers() if (o.kind, o.target) == (kind, target) and not o.problem), None)
    if found:
        return found
    if not kind:
        raise PluginError(f"{cls.__name__} answers no hook", "mark a method such as hookline_advantage with @hookimpl")
    try:
        path = str(inspect.getsourcefile(cls) or "")
    except (TypeError, OSError):
        path = ""
    path = path if Path(path).is_file() else stand_ins.__file__
    name = "".join(f"-{c.lower()}" if c.isupper() else c for c in (cls.name or cls.__name__)).strip("-")
    return Handed(kind, name.replace("_", "-"), target, Path(path).name, "handed over", path=path, cls=cls)


class Subject:
    """A component under test, and the harnesses made for it. Use it as a context manager, or `close()` it."""

    def __init__(self, offer: Offer, options: Mapping[str, Any], folder: Path) -> None:
        self.offer, self.options, self.folder = offer, dict(options), folder
        self.cls = check_class(offer.load(), offer.kind, str(offer))
        self.kind = offer.kind
        known = [field.alias or name for name, field in self.cls.Config.model_fields.items()]
        unknown = next((name for name in options if name not in known), None)
        if unknown:
            raise ExperimentError(
                f"'{offer.name}' has no option '{unknown}'{nearest(unknown, known)}",
                f"it has: {', '.join(known) or 'none'}",
            )
        self.setting: Setting | None = None
        self.fails: str | None = None
        """Why it takes no step; empty when it does, None while nobody has tried."""
        self._harnesses: dict[str, Harness] = {}
        self._made = 0
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in own_rows()), encoding="utf-8")
        self.rows = str(rows)

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for harness in self._harnesses.values():
            harness.close()
        self._harnesses.clear()

    def harness(self, **options: Any) -> Harness:
        """The harness with these options on top of the subject's own; kept, and at its start again when asked for."""
        key = json.dumps(options, sort_keys=True, default=str)
        if key not in self._harnesses:
            self._harnesses[key] = self.new(**options)
        harness = self._harnesses[key]
        harness.restore()
        return harness

    def new(self, **options: Any) -> Harness:
        """A harness of its own, which the caller closes."""
        if self.setting is None:
            self.settle()
        assert self.setting is not None
        return self._open(self.setting, options)

    def settle(self) -> None:
        """Find a setting in which the component stands; else the first that at least opens. Raises what the first said."""
        first: HooklineError | None = None
        opens: Setting | None = None
        for setting in self._settings():
            try:
                harness = self._open(setting, {})
            except HooklineError as err:
                first = first or err
                continue
            except ValidationError as err:
                first = first or unfilled(self.offer, err)
                continue
            opens = opens or setting
            try:
                harness.step()
            except HooklineError as err:
                first = first or err
                continue
            finally:
                harness.close()
            self.setting = setting
            return
        if opens is None:
            assert first is not None
            raise first
        self.setting = self._beside_others(opens) or opens

    def _beside_others(self, opens: Setting) -> Setting | None:
        """The setting with an update that brings what the component reads, such as heads that only some updates learn."""
        if self.kind not in ("rollout", "reward"):
            return None
        for partner in sorted(o.name for o in offers.offers() if o.kind == "update" and not o.problem):
            setting = replace(opens, partner=partner)
            with contextlib.suppress(HooklineError, ValidationError):
                harness = self._open(setting, {})
                try:
                    harness.step()
                    return setting
                finally:
                    harness.close()
        return None

    def _open(self, setting: Setting, options: Mapping[str, Any]) -> Harness:
        self._made += 1
        return Harness(self, setting, options, self.folder / f"harness-{self._made}")

    def _settings(self) -> Iterator[Setting]:
        """Ways to surround the component and to fill the options that name data or a phase, the plainest first."""
        fields = self.cls.Config.model_fields
        required = {field.alias or name for name, field in fields.items() if field.is_required()}
        data_, phases = (
            [name for name in naming(self.cls, what) if name not in self.options] for what in ("data", "phase")
        )
        plain = Setting(
            rows=self.rows,
            named={name: self.rows for name in data_ if name in required},
            phases={name: "before" for name in phases if name in required},
            filled=guesses(self.cls, set(self.options)),
        )
        yield plain
        yield replace(plain, epochs=1)
        if set(data_) - required:
            yield replace(plain, named=dict.fromkeys(data_, self.rows))
        if set(phases) - required:
            yield replace(plain, phases=dict.fromkeys(phases, "before"))
        for offer in heads():
            yield replace(plain, head=offer.name)
        rare = self._needs() - set().union(*map(plain_gives, STAND_INS))
        for pick in (1, 2) if rare else ():
            yield replace(plain, pick=pick)
        counts = {
            f.alias or n: f.default for n, f in fields.items() if f.annotation is int and f.alias not in self.options
        }
        small = {name: 8 for name, count in counts.items() if isinstance(count, int) and count > 8}
        yield replace(plain, filled={**plain.filled, **small})
        tasks = sorted(o.name for o in offers.offers() if o.kind == "task" and not o.problem)
        for name in tasks if rare or data_ else ():
            yield replace(plain, rows=f"task:{name}", named=dict.fromkeys(data_, f"task:{name}"))

    def _needs(self) -> set[str]:
        """What the component needs; with its plainest options, where these decide."""
        try:
            options = {**guesses(self.cls, set(self.options)), **self.options}
            return set(self.cls(self.cls.Config.model_validate(options)).needs)
        except (ValidationError, HooklineError):
            return {"unknown"}


@dataclass(frozen=True)
class Setting:
    """What stands around the component besides its neighbours."""

    rows: str
    """The data that prompts are drawn from."""
    named: Mapping[str, str]
    """Options of the component that name data."""
    phases: Mapping[str, str]
    """Options of the component that name an earlier phase."""
    head: str = ""
    """A head on the policy, for components that read one."""
    pick: int = 0
    """Which of those on offer give what the component needs and no stand-in gives: the plainest, the next, …"""
    filled: Mapping[str, Any] = field(default_factory=dict)
    """Options without a default, and counts that are too large for the harness's few rows."""
    epochs: int = 2
    """Updates: in the second epoch ratios leave 1. Those that bear only one are given one."""
    partner: str = ""
    """The update beside another component, where that one reads what only some updates bring."""


@dataclass
class Gradient:
    """What one call of an update asked of the weights."""

    steps: list[dict[str, Tensor]] = field(default_factory=list)
    """Per optimiser step: role/parameter → gradient."""
    losses: list[float] = field(default_factory=list)
    """Per optimiser step."""

    def flat(self, role: str = "", first: bool = False) -> Tensor:
        """All of it, or one role's, as one vector; optimiser steps one behind the other, or the first alone."""
        steps = self.steps[:1] if first else self.steps
        parts = [g.reshape(-1) for step in steps for name, g in sorted(step.items()) if name.startswith(role)]
        return torch.cat(parts) if parts else torch.zeros(0)


class Lenient(MetricLog):
    """Notes a figure that nobody declared, instead of ending the run: a law of its own tells of it."""

    undeclared: set[str]

    def find(self, name: str, who: str) -> Metric:
        try:
            return super().find(name, who)
        except PluginError:
            self.undeclared.add(name)
            return Metric(name, "undeclared")


class Harness:
    """One phase with the component in it, at its start until it is stepped; `restore()` brings it back there."""

    def __init__(self, subject: Subject, setting: Setting, options: Mapping[str, Any], folder: Path) -> None:
        self.subject, self.setting, self.folder = subject, setting, folder
        self.options = {**setting.filled, **setting.named, **setting.phases, **subject.options, **options}
        parsed, document = experiment.load(self._experiment())
        loose = [*stand_in_offers(), *([subject.offer] if subject.offer.path else [])]
        self._planned = functools.partial(make_plan, parsed, document, loose)
        self.plan = self._planned()
        self.run = open_run(folder, self.plan)
        self.runner = asyncio.Runner()
        self._opened: list[PhaseLoop] = []
        try:
            session = Session(self.plan, self.run, self.runner)
            self.tokenizer = session.tokenizer
            for phase in self.plan.phases[:-1]:
                with PhaseLoop(session, phase) as loop:
                    loop.run(Stopping())
            self.loop = self._loop()
        except BaseException:
            self.close()
            raise
        self._keep()

    def close(self) -> None:
        for loop in self._opened:
            loop.close()
        self.run.close()
        self.runner.close()

    # -- what stands on it

    def _experiment(self) -> dict[str, Any]:
        wishes = {"epochs": self.setting.epochs, "minibatches": 1, "grad_clip": 1e9, "lr": 1e-2}
        s = self.subject
        if s.kind == "update" and issubclass(s.cls.Config, UpdateConfig):
            self.options = {**wishes, **self.options}
        own = {"use": s.offer.name if s.offer.path else f"{s.offer.distribution}:{s.offer.name}", **self.options}
        probe = s.cls(s.cls.Config.model_validate(self.options))
        parts = neighbours(s.kind, s.cls, probe, own, self.setting)
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
        return loop

    def resumed(self) -> PhaseLoop:
        """The phase as a new process would find it: from its newest checkpoint."""
        return self._loop()

    @property
    def component(self) -> Component:
        return cast(Component, self.slot.component)

    @property
    def slot(self) -> Any:
        return next(slot for slot in self.loop.planned.every if slot.cls is self.subject.cls)

    @property
    def undeclared(self) -> set[str]:
        return cast(Lenient, self.loop.phase.metrics).undeclared

    # -- where it stands

    def _keep(self) -> None:
        """Note the phase as it is, to come back to it."""
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
            except Exception:  # what cannot be copied stays what it is
                found[name] = value
        return found

    def restore(self) -> None:
        """Back to the start: weights, optimiser, counters, and what every component remembers."""
        phase = self.loop.phase
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
        phase.metrics.collect()
        phase.counters = Counters()
        if phase.trainer:
            for part in phase.trainer.optimiser.parts:
                part.state.clear()
            phase.trainer.load_state_dict(self._trainer)

    def step(self, count: int = 1, loop: PhaseLoop | None = None) -> dict[str, float]:
        """Real steps; the figures of the last one."""
        loop = loop or self.loop
        figures: dict[str, float] = {}
        for _ in range(count):
            loop.step()
            loop.phase.scope.step += 1
            figures, _ = loop.phase.metrics.collect()
        return figures

    def weights(self, loop: PhaseLoop | None = None) -> dict[str, Tensor]:
        """A copy of every role's parameters: role/parameter → values."""
        roles = (loop or self.loop).phase.roles
        return {f"{name}/{n}": p.clone() for name, role in roles.items() for n, p in role.tensors().items()}

    def lent(self, stage: str) -> Batch:
        """The same as a wrapper meets it: what the hook says without it."""
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
        """What the phase's hooks say, from the start up to `rollout`, `score` or `advantage`."""
        hooks, ctx = self.loop.hooks, self.loop.ctx
        self.restore()
        batch: Batch = hooks.rollout(ctx)
        if stage != "rollout" and (self.loop.planned.rewards or {"recorded_B", "recorded_BT"} & batch.extra.keys()):
            batch = hooks.score(ctx, cast(Rollout, batch))
            if stage == "advantage" and self.loop.planned.advantage_by:
                batch = hooks.advantage(ctx, batch)
        return batch

    # -- asking the component itself

    def ask(self, hook: str, **arguments: Any) -> Any:
        """The component's answer to a hook, from the start, as the engine asks it."""
        self.restore()
        answer = ask(self.component, self.slot, hook, {"ctx": self.loop.ctx, **arguments})
        return self.runner.run(waited(answer)) if inspect.isawaitable(answer) else answer

    def around(self, hook: str, inner: Batch, **arguments: Any) -> Any:
        """What the component makes of an answer that it wraps, from the start."""
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
        found = hook_methods(self.subject.cls)
        return [name for name, options in found.items() if options.get("wrapper")]

    # -- gradients

    def gradient(self, batch: Batch, micro_tokens: int = 1 << 20, away: float | Mapping[str, Tensor] = 0.0) -> Gradient:
        """The gradients the update asks for on a batch, from the start; no weight is changed.

        away: where the weights have moved by the second epoch; see `moved`.
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
        """Within it, the trained weights lie elsewhere: by noise of this size, or along given directions."""
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


async def waited(answer: Any) -> Any:
    return await answer


def any_completion(name: str) -> bool:
    try:
        return any("completion" in row for row in sources.rows(name).records[:1])
    except HooklineError:
        return False


def own_rows() -> list[dict[str, Any]]:
    """Thirty words, in rows that have what any component may ask of a row."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    rows = []
    for i in range(24):
        words = letters[i:] + letters
        chosen, rejected = " ".join([*words[3 : 5 + i % 4], "."]), " ".join(words[9 : 12 + i % 5])
        prompt = " ".join(words[: 1 + i % 4])
        rows.append(
            {
                "prompt": prompt,
                "completion": chosen,
                "chosen": chosen,
                "rejected": rejected,
                "text": f"{prompt} {chosen} ?",
                "keywords": list(words[3 : 5 + i % 3]),
                "answer": chosen,
                "label": bool(i % 2),
                "turns": [[word, "?" if i % 3 else "", float(i % 2)] for word in chosen.split()[:3]],
            }
        )
    return rows


def earlier(rows: str) -> dict[str, Any]:
    """A phase before the harness's own, with a head to read and judgements to learn from."""
    read = heads()
    return {
        "name": "before",
        "steps": 1,
        "rollout": {"use": "testing-sampled", "prompts": rows},
        "reward": "testing-worth",
        "feedback": "testing-judge",
        **({"model": {"head": read[0].name}} if read else {}),
    }


def heads() -> list[Offer]:
    """Every head on offer."""

    def is_head(offer: Offer) -> bool:
        try:
            return issubclass(offer.load(), Head)
        except (PluginError, TypeError):
            return False

    return [o for o in offers.offers() if o.kind == "model" and not o.problem and is_head(o)]


def neighbours(
    kind: str, cls: type[Component], probe: Component, own: dict[str, Any], setting: Setting
) -> dict[str, Any]:
    """The parts of a phase around a component: stand-ins, and whoever on offer gives what else is needed."""
    paired, rows = "pairs" in probe.needs, setting.rows
    parts: dict[str, Any] = {
        "rollout": {"use": "testing-pairs" if paired else "testing-sampled", "prompts": rows},
        "wrap": ["testing-uneven"],
    }
    given = set(plain_gives(parts["rollout"]["use"]))
    if kind == "rollout":
        parts = {"rollout": own, "reward": "testing-worth", "update": "testing-follow", "evaluate": [evaluation(own)]}
        if "recorded_B" in probe.gives or "recorded_BT" in probe.gives:
            del parts["reward"]
    elif kind == "reward":
        parts |= {"reward": own, "update": "testing-follow"}
    elif kind == "advantage":
        parts |= {"reward": "testing-worth", "advantage": own, "update": "testing-follow"}
    elif kind == "wrapper":
        parts["wrap"].append(own)
        parts |= {"reward": "testing-worth", "advantage": "testing-credit", "update": "testing-follow"}
    elif kind == "feedback":
        parts |= {"reward": "testing-worth", "feedback": own}
    elif kind == "engine":
        parts |= {"reward": "testing-worth", "update": "testing-follow", "engine": own}
    elif kind == "environment":
        parts |= {"rollout": {"use": "testing-host", "prompts": rows, "environment": own}}
        parts |= {"reward": "testing-worth", "update": "testing-follow"}
    elif kind == "update":
        parts |= {"update": own}
        if issubclass(cls.takes, Scored) and not paired:
            parts["reward"] = "testing-worth"
        if issubclass(cls.takes, Advantaged) and "hookline_advantage" not in hook_methods(cls):
            partner = reader(set(probe.gives)) if "critic" in probe.gives else None
            parts["advantage"] = partner or "testing-credit"
    elif KINDS[kind].scope == "phase":
        parts |= {"reward": "testing-worth", "advantage": "testing-credit", "update": "testing-follow"}
        parts |= {KINDS[kind].section: own}
    if "reward" in parts and kind != "reward":
        parts["reward"] = ["testing-worth", "testing-trickle"]
    if "correction" in probe.gives:
        parts["wrap"].insert(0, "testing-stale")
    if setting.partner and parts.get("update") == "testing-follow":
        parts["update"] = setting.partner
    missing = [need for need in sorted(probe.needs) if need not in given | set(probe.gives)]
    while missing:
        need = missing.pop()
        kinds = [k for k in MAY_GIVE if k != kind or KINDS[k].around]
        found = giver(need, kinds, setting.pick)
        if found is None:
            continue  # the plan says so, in one sentence
        offer, options, gives, needs = found
        use = {"use": f"{offer.distribution}:{offer.name}", **fill(options, rows)}
        if offer.kind == "wrapper":
            parts["wrap"].insert(1, use)
        elif (about := KINDS[offer.kind]).many:
            named = parts.get(about.section, [])
            parts[about.section] = [*(named if isinstance(named, list) else [named]), use]
        else:
            parts[about.section] = use
        given |= gives
        missing += [n for n in needs if n not in given]
    return parts


def plain_gives(stand_in: str) -> frozenset[str]:
    """What a stand-in gives, whatever its options."""
    return frozenset(inspect.getattr_static(STAND_INS[stand_in][1], "gives"))


def evaluation(own: Mapping[str, Any]) -> dict[str, Any]:
    return {"rows": 6, "rollout": dict(own), "reward": ["testing-worth"]}


def guesses(cls: type[Component], known: set[str]) -> dict[str, Any]:
    """Plain values for options that have no default; text cannot be guessed."""
    found: dict[str, Any] = {}
    for name, f in cls.Config.model_fields.items():
        called = f.alias or name
        choices = [choice for choice in getattr(f.annotation, "__args__", ()) if isinstance(choice, str)]
        if f.is_required() and called not in known:
            if choices:
                found[called] = choices[0]
            elif f.annotation in (bool, int, float):
                found[called] = True if f.annotation is bool else 4 if f.annotation is int else 0.5
    return found


def unfilled(offer: Offer, err: ValidationError) -> PluginError:
    """Options the harness cannot choose, in one sentence."""
    problems = err.errors(include_url=False)
    missing = [str(problem["loc"][0]) for problem in problems if problem["type"] == "missing"]
    if missing:
        give = " ".join(f"{name}=…" for name in missing)
        return PluginError(
            f"{offer} has no default for {', '.join(missing)}", f"say it: hookline plugins check {offer.name} {give}"
        )
    said = "; ".join(str(problem.get("ctx", {}).get("error", problem["msg"])) for problem in problems)
    return PluginError(f"{offer} refuses its options: {said}", f"hookline plugins check {offer.name} OPTION=VALUE …")


DATA = "\0rows"


def fill(options: Mapping[str, Any], rows: str) -> dict[str, Any]:
    return {name: rows if value == DATA else value for name, value in options.items()}


def naming(cls: type[Component], what: str) -> list[str]:
    """The options of a component that name data, or a phase."""
    everything: dict[str, Any] = dict.fromkeys(cls.Config.model_fields, "x")
    return list(marked(cls.Config.model_construct(**everything), what))


def variants(cls: type[Component]) -> Iterator[dict[str, Any]]:
    """The plainest options of a component, then each with one switch thrown or one count raised."""
    fields = cls.Config.model_fields
    required = {field.alias or name for name, field in fields.items() if field.is_required()}
    plain: dict[str, Any] = {name: DATA for name in naming(cls, "data") if name in required}
    yield plain
    for name, f in fields.items():
        if f.annotation is bool:
            yield {**plain, f.alias or name: not f.default}
        elif f.annotation is int and isinstance(f.default, int):
            yield {**plain, f.alias or name: f.default + 2}


def candidates() -> Iterator[tuple[Offer, dict[str, Any], set[str], set[str]]]:
    """(offer, options, gives, needs) of everything that may stand in a loop, built-in ones first.

    Needs that the phase itself meets, by its model or its engine, are left out: they make no component less plain.
    """
    for offer in sorted(offers.offers(), key=lambda o: not o.built_in):
        if offer.kind not in MAY_GIVE or offer.problem:
            continue
        try:
            cls = check_class(offer.load(), offer.kind, str(offer))
        except PluginError:
            continue
        for options in variants(cls):
            with contextlib.suppress(Exception):
                made = cls(cls.Config.model_validate(options))
                yield offer, options, set(made.gives), {need for need in made.needs if not of_a_phase(need)}


def giver(need: str, kinds: Sequence[str], pick: int) -> tuple[Offer, dict[str, Any], set[str], set[str]] | None:
    """Somebody of these kinds who gives it: the one with the fewest options and needs of its own, or the next."""
    plainest: dict[tuple[str, str], tuple[Offer, dict[str, Any], set[str], set[str]]] = {}
    for found in sorted(candidates(), key=lambda c: (len(c[1]), len(c[3]))):
        if need in found[2] and found[0].kind in kinds:
            plainest.setdefault((found[0].kind, found[0].name), found)
    ranked = list(plainest.values())
    return ranked[min(pick, len(ranked) - 1)] if ranked else None


def reader(gives: set[str]) -> str | None:
    """An advantage that reads what an update brings, such as its critic."""
    found = [c for c in candidates() if c[0].kind == "advantage" and c[3] & gives and c[3] <= gives | {"groups"}]
    return f"{found[0][0].distribution}:{found[0][0].name}" if found else None
