"""The context that hooks receive, as `hookline.contract.context` describes it: one component's view of a phase."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import inspect
import json
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor, nn

from hookline import rng
from hookline.batch.lent import Lent
from hookline.batch.stages import Batch, Rollout, Sampling, Term
from hookline.contract import context as contract
from hookline.contract.engine import Completions
from hookline.contract.family import Side
from hookline.contract.loss import Loss, MicroBatch, Stats, Support
from hookline.contract.store import Item
from hookline.contract.task import Task
from hookline.data import tasks
from hookline.data.rows import Rows, joined
from hookline.errors import PluginError, ServiceError, Stopped, cause, renamed
from hookline.loop.collecting import item_of
from hookline.loop.resources import Resources
from hookline.loop.scope import Scope, Training
from hookline.models.role import Role
from hookline.registry.slot import Slot
from hookline.runs.run import Run
from hookline.storage import trees
from hookline.tokens.encode import Encoding
from hookline.tokens.tokenizer import Tokenizer
from hookline.training.trainer import Trainer
from hookline.world import waiting
from hookline.world.world import World

__all__ = ["PhaseContext"]

B = TypeVar("B", bound=Batch)
CLOSELY = 3
"""The number of steps in which the contents of what hooks are lent are compared."""
Answer = TypeVar("Answer")
Shared = TypeVar("Shared")


class PhaseContext(Encoding):
    """One component's view of the running phase. Its docstrings are those of `hookline.Context`."""

    def __init__(self, resources: Resources, scope: Scope | None = None, slot: Slot | None = None) -> None:
        self._resources = resources
        self._scope = scope or resources.training
        self._slot = slot

    def bound(self, slot: Slot) -> PhaseContext:
        """The same context, as one component sees it."""
        view = copy.copy(self)
        view._slot = slot
        return view

    def scoped(self, scope: Scope) -> PhaseContext:
        """The same phase, in another scope of it, e.g. an evaluation."""
        view = copy.copy(self)
        view._scope = scope
        return view

    def lend(self, values: Iterable[Any], hook: str) -> Lent:
        """Watch what a hook is lent; contents are compared in the first steps, where a component that changes them does so
        as it does later."""
        closely = self._resources.begun <= CLOSELY
        kept = self._resources.roles.kept if closely and hook != "hookline_update" else {}
        return Lent(values, {name: list(role.tensors().values()) for name, role in kept.items()}, closely)

    @property
    def failed(self) -> str:
        """The first failure of a service in this phase, since this process began; empty if there was none."""
        return next(iter(self._resources.failed), "")

    def forget(self) -> None:
        """Drop the cached statistics of finished rows."""
        self._resources.stats.clear()

    # -- where we are

    @property
    def run(self) -> Run:
        return self._resources.run

    @property
    def phase(self) -> str:
        return self._scope.phase

    @property
    def step(self) -> int:
        return self._scope.step

    @property
    def steps(self) -> int:
        return self._resources.steps

    @property
    def evaluating(self) -> bool:
        return self._scope.evaluating

    @property
    def training(self) -> Training:
        """The scope of the phase's training, in an evaluation too."""
        return self._resources.training

    @property
    def given(self) -> frozenset[str]:
        return self._resources.given

    @property
    def brings_advantage(self) -> bool:
        return self._resources.advantage_by == self.instance

    @property
    def tokenizer(self) -> Tokenizer:
        return self._resources.tokenizer

    @property
    def instance(self) -> str:
        return self._slot.instance if self._slot else "core"

    @property
    def world(self) -> World:
        """Which process this is, and where networks lie."""
        return self._resources.world

    # -- randomness and data

    def key(self, purpose: str, *ids: object) -> tuple[object, ...]:
        return self._scope.key(self.instance, purpose, *ids)

    def rng(self, purpose: str, *ids: object) -> torch.Generator:
        return rng.generator(*self.key(purpose, *ids))

    def sample_ids(self, n: int) -> Tensor:
        return self._scope.sample_ids(n)

    def rows(self, name: str) -> Rows:
        found = self.run.data(name)
        for note in found.notes:
            if note not in self.run.notices:  # two splits of a file leave out the same rows
                self.run.notice(note)
        return found

    def task(self, name: str) -> Task:
        return tasks.task(name, self.run.catalogue.loose)

    def collected(self, phase: str) -> Rows:
        rounds = self._resources.rounds(phase)
        there = [name for name in rounds if self.run.has_collected(name)]
        return joined([self.run.collected(name) for name in there or rounds])

    def take(self, total: int, n: int) -> list[int]:
        return self._scope.take(self.instance, total, n)

    # -- models

    def role_named(self, name: str) -> Role:
        return self._resources.roles.named(name, self.instance)

    def role_with(self, head: str) -> str:
        return self._resources.roles.with_head(head, self.instance)

    def role(
        self,
        name: str,
        *,
        of: str = "policy",
        phase: str | None = None,
        path: str | None = None,
        frozen: bool = False,
        heads: contract.Heads | None = None,
    ) -> Role:
        return self._resources.roles.make(name, self.instance, of, phase, path, frozen, heads)

    def encoder(self, path: str) -> Encoding:
        return self._resources.encoder(path)

    def head(
        self,
        name: str,
        make: Callable[[int], nn.Module],
        *,
        role: str = "policy",
        reads: Side = "before",
    ) -> None:
        self._resources.roles.add_head(name, self.instance, make, role, reads)

    def parameter(self, name: str, start: Tensor, *, role: str = "policy", lr: float | None = None) -> nn.Parameter:
        return self._resources.roles.add_parameter(name, self.instance, start, role, lr)

    def target(self, name: str, of: str, *, role: str = "policy") -> None:
        self._resources.roles.add_target(name, self.instance, of, role)

    def polyak(self, name: str, of: str, share: float, *, role: str = "policy") -> None:
        self._resources.roles.polyak(name, self.instance, of, share, role)

    def blend(self, name: str, of: str, share: float, *, role: str = "policy") -> None:
        """The old name of `polyak`."""
        renamed("ctx.blend", "polyak")
        self.polyak(name, of, share, role=role)

    # -- statistics and training

    def stats(
        self,
        batch: Batch,
        model: str = "policy",
        want: Sequence[str] = ("logprobs",),
        support: Support | None = None,
    ) -> Stats:
        support = support or ("kept" if model == "policy" else "whole")
        return self._resources.stats.get(self.role_named(model), batch, want, support)

    def train(
        self,
        batch: B,
        loss: Callable[[MicroBatch[B]], Loss],
        unit: Literal["row", "group"] = "row",
        after: Callable[[], None] | None = None,
        beside: tuple[Batch, Callable[[MicroBatch[Any]], Loss]] | None = None,
    ) -> None:
        trainer = self._trainer("ctx.train")
        self._resources.stats.clear()
        trainer.train(batch, loss, unit, after, beside)
        self._resources.stats.clear()

    def measure(
        self, batch: B, loss: Callable[[MicroBatch[B]], Loss], unit: Literal["row", "group"] = "row"
    ) -> Mapping[str, Term]:
        return self._trainer("ctx.measure").measure(batch, loss, unit)

    def _trainer(self, call: str) -> Trainer:
        """The trainer, for a call that only an update may make."""
        trainer, kind = self._resources.trainer, self._slot.kind if self._slot else "update"
        if trainer is None and self._slot and kind == "update":
            raise PluginError(f"'{self.instance}' has no learning rate", "derive its Config from hookline.UpdateConfig")
        if trainer is None or kind != "update":
            raise PluginError(
                f"'{self.instance}' calls {call}, which only an update may do",
                "move the call into an update",
            )
        return trainer

    def draw(
        self,
        prompts: Sequence[Sequence[int]],
        sample_B: Tensor,
        *,
        sampling_: Sampling,
        max_new_tokens: int,
        model: str = "policy",
        beside: Sequence[str] = (),
        combine: Callable[[Mapping[str, Any]], Tensor] | None = None,
        greedy_B: Tensor | None = None,
    ) -> Completions:
        return self._resources.drawing.draw(
            self,
            prompts,
            sample_B,
            sampling=sampling_,
            max_new_tokens=max_new_tokens,
            seed=self._scope.drawing,
            model=model,
            beside=beside,
            combine=combine,
            greedy_B=greedy_B,
        )

    # -- figures, over all ranks

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        self._scope.log(name, float(value), count, f"'{self.instance}'")

    def sum(self, x: Tensor | float) -> float:
        return self.world.sum(float(x.double().sum()) if isinstance(x, Tensor) else float(x), "ctx.sum")

    def mean(self, x: Tensor) -> float:
        return self.world.mean(x, "ctx.mean")

    def max(self, x: Tensor) -> float:
        return self.world.max(float(x.max()) if x.numel() else -math.inf, "ctx.max")

    def gather(self, value: Shared) -> list[Shared]:
        return self.world.gather(value, "ctx.gather")

    def shard(self, items: Sequence[Shared]) -> Sequence[Shared]:
        return self.world.shard(items)

    def main(self, ask: Callable[[], Answer]) -> Answer:
        return self.world.main(ask, "ctx.main")

    # -- what comes from outside

    def wait(self, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
        with self.world.patient():
            return self.wait_for(coroutine, f"'{self.instance}'")

    def wait_for(self, coroutine: Coroutine[Any, Any, Answer], who: str) -> Answer:
        """Like `wait`; who: the name that a notice shows when the answer takes long."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            told = waiting.told_when_late(coroutine, who, self.run.notice, self._resources.late)
            return self._resources.answers.run(told, context=contextvars.copy_context())
        coroutine.close()
        raise PluginError(f"'{self.instance}' calls ctx.wait inside a coroutine", "use await there")

    async def pause(self, seconds: float) -> None:
        end, stopping = time.monotonic() + seconds, self._resources.stopping
        stopping.pausing += 1
        try:
            while (left := end - time.monotonic()) > 0 and not stopping.code:
                await asyncio.sleep(min(left, 0.2))
        finally:
            stopping.pausing -= 1
        if stopping.code:
            text = f"stopped while '{self.instance}' waited in step {self.step + 1} of phase '{self.phase}'"
            raise Stopped(text, "run the same command to continue: it goes on from the newest save", stopping.code)

    def item(self, rollout: Rollout, rows: Sequence[int], **more: Any) -> Item:
        return item_of(rollout, rows, self.phase, self.step, self.run.id, **more)

    @overload
    def once(self, key: object, fn: Callable[[], Coroutine[Any, Any, Answer]]) -> Awaitable[Answer]: ...

    @overload
    def once(self, key: object, fn: Callable[[], Answer]) -> Answer: ...

    def once(self, key: object, fn: Callable[[], Any]) -> Any:
        place = self._place("once", *(key if isinstance(key, tuple) else (key,)))
        if inspect.iscoroutinefunction(fn):
            return waiting.Late(self._once(place, fn), f"'{self.instance}': ctx.once({key!r:.40}, …) of an async def")
        known, answer = self.run.journal.find(place)
        if known:
            return answer
        answer = fn()
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise PluginError(
                f"'{self.instance}' passes ctx.once a plain function that returns an awaitable", "pass an async def"
            )
        return self._journaled(place, answer)

    async def _once(self, place: list[object], fn: Callable[[], Awaitable[Any]]) -> Any:
        known, answer = self.run.journal.find(place)
        return answer if known else self._journaled(place, await fn())

    async def each(
        self, rollout: Rollout, ask: Callable[[int], Awaitable[float]], *, timeout: float = 30.0, retries: int = 0
    ) -> Term:
        label, asked = self._label, self._scope.asked
        call, asked[label] = asked[label], asked[label] + 1

        async def one(row: int) -> float | None:
            async def answer() -> float | None:
                for _ in range(retries + 1):
                    try:
                        return float(await asyncio.wait_for(ask(row), timeout))
                    except (TimeoutError, OSError, ServiceError) as err:
                        if not self._resources.failed:
                            why = f"no answer within {timeout:g} s" if isinstance(err, TimeoutError) else cause(err)
                            self._resources.failed.append(f"'{self.instance}': {why}")
                return None

            place = self._place("each", int(rollout.sample_B[row]), call)
            known, value = self.run.journal.find(place)
            if known:
                return None if value is None else float(value)
            value = await answer()
            return value if value is not None and not math.isfinite(value) else self._journaled(place, value)

        answers = await asyncio.gather(*(one(row) for row in range(len(rollout))))
        ok = torch.tensor([a is not None for a in answers], dtype=torch.bool)
        return Term(torch.tensor([a or 0.0 for a in answers]), ok)

    @property
    def _label(self) -> str:
        return self._slot.label if self._slot else "core"

    def _place(self, *call: object) -> list[object]:
        """A key of the journal."""
        again = self.run.journal.attempt(self.phase)
        place = [*self._scope.journaled, self._label, self.step, *call, *([f"attempt {again + 1}"] if again else [])]
        try:
            json.dumps(place)
        except TypeError as err:
            raise PluginError(
                f"'{self.instance}' passes ctx.once the key {call[1:]}: {err}", "build the key from text and numbers"
            ) from None
        return place

    def _journaled(self, place: list[object], answer: Any) -> Any:
        """Write the answer to the journal, unless the run is only read; return it as the journal holds it."""
        try:
            if self.run.locked:
                return self.run.journal.add(place, answer)
            tensors: dict[str, Tensor] = {}
            return trees.unflatten(trees.flatten(answer, tensors), tensors)
        except trees.Unsavable as err:
            where = f" (at '{err.path}')" if err.path else ""
            raise PluginError(
                f"'{self.instance}' got {err.what}{where} from ctx.once, which cannot be journaled",
                "return numbers, text, lists, dicts with text keys, or tensors",
            ) from None


def _holds_to_the_contract(ctx: PhaseContext) -> contract.Context:
    """Nothing at run time; a type checker compares the two classes here."""
    return ctx
