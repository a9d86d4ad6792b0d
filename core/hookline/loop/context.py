"""What a hook is given: the models in their roles, token statistics, training, data and randomness of one phase."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from hookline import rng
from hookline.batch.encoded import Encoded
from hookline.batch.stages import Batch, Record, Rollout, Sampling, Term
from hookline.contract.family import Side
from hookline.contract.loss import Loss, MicroBatch, Stats
from hookline.contract.metrics import MetricLog
from hookline.data import encode, sources, tasks
from hookline.data.tokenizer import Tokenizer
from hookline.errors import PluginError, ServiceError, nearest, renamed
from hookline.inference.completions import Completions
from hookline.inference.drawing import Drawing
from hookline.models.role import Role
from hookline.registry.slot import Slot
from hookline.training.statistics import statistics
from hookline.training.trainer import Trainer
from hookline.world.world import World

if TYPE_CHECKING:
    from hookline.contract.task import Task
    from hookline.inference.local import NextToken
    from hookline.runs.run import Run

__all__ = ["Context"]


B = TypeVar("B", bound=Batch)
Answer = TypeVar("Answer")


@dataclass
class Shared:
    """What every component's view of a phase has in common."""

    run: Run
    phase: str
    steps: int
    seed: int
    tokenizer: Tokenizer
    roles: dict[str, Role]
    metrics: MetricLog
    load_phase: Callable[[str, str, Mapping[str, Callable[[int], nn.Module]]], Role]
    answers: asyncio.Runner
    """The run's event loop."""
    drawing: Drawing
    """The engine of the phase, and what it was told."""
    world: World = field(default_factory=World)
    micro_tokens: int = 16384
    step: int = 0
    samples: int = 0
    """Sample ids handed out so far in the whole run."""
    evaluation: str = ""
    evaluated_at: int = 0
    asked: dict[tuple[str, str], int] = field(default_factory=dict)
    """How often a component asked for late answers in this step."""
    """The step of the phase after which the evaluation is made."""
    evaluation_samples: int = 0
    given: frozenset[str] = frozenset()
    """What the phase's components give, all together."""
    advantage_by: str = ""
    """The instance that answers hookline_advantage."""
    settling: bool = True
    """True during setup, when roles and heads may be made."""
    trainer: Trainer | None = None
    cache: dict[tuple[int, ...], tuple[tuple[object, ...], int, Stats]] = field(default_factory=dict)
    """Statistics of this step by what they are of: the tokens, the mask, the behaviour and the role."""
    orders: dict[tuple[object, ...], list[int]] = field(default_factory=dict)
    derived: list[str] = field(default_factory=list)
    """Roles that others made, frozen: rebuilt on resume, their hash compared."""


class Context:
    """One component's view of the running phase."""

    def __init__(self, shared: Shared, slot: Slot | None = None) -> None:
        self._shared = shared
        self._slot = slot

    def bound(self, slot: Slot) -> Context:
        """The same phase, seen by one component."""
        view = copy.copy(self)
        view._slot = slot
        return view

    # -- where we are

    @property
    def run(self) -> Run:
        return self._shared.run

    @property
    def phase(self) -> str:
        return self._shared.phase

    @property
    def step(self) -> int:
        """Steps of this phase that are done; in an evaluation, batches drawn so far."""
        return self._shared.step

    @property
    def steps(self) -> int:
        """Steps this phase has in all."""
        return self._shared.steps

    @property
    def evaluating(self) -> bool:
        """True while an evaluation draws and judges rows: rows come in file order, and nothing may learn from them."""
        return bool(self._shared.evaluation)

    @property
    def given(self) -> frozenset[str]:
        """What the components of this phase give: columns such as `return_BT`, `groups`, `behaviour`."""
        return self._shared.given

    @property
    def brings_advantage(self) -> bool:
        """Whether this component answers hookline_advantage here: an update that could does not where another is named."""
        return self._shared.advantage_by == self.instance

    @property
    def tokenizer(self) -> Tokenizer:
        return self._shared.tokenizer

    @property
    def instance(self) -> str:
        return self._slot.instance if self._slot else "core"

    @property
    def world(self) -> World:
        """Which process this is, and where networks lie."""
        return self._shared.world

    # -- randomness and data

    def key(self, purpose: str, *ids: object) -> tuple[object, ...]:
        """What a random number is for: (seed, phase, step, instance, purpose, ids); see `hookline.rng`."""
        s = self._shared
        place = ("evaluation", s.evaluation) if s.evaluation else (s.phase,)
        return (s.seed, *place, s.step, self.instance, purpose, *ids)

    def rng(self, purpose: str, *ids: object) -> torch.Generator:
        """A fresh generator that depends on the key alone, so that nothing has to be saved and nothing drifts."""
        return rng.generator(*self.key(purpose, *ids))

    def sample_ids(self, n: int) -> Tensor:
        """`n` sample ids, int64 [n], never handed out before in this run."""
        s = self._shared
        if s.evaluation:
            s.evaluation_samples += n
            return torch.arange(s.evaluation_samples - n, s.evaluation_samples)
        s.samples += n
        return torch.arange(s.samples - n, s.samples)

    def rows(self, name: str) -> sources.Rows:
        """All rows of a data name; its hash joins the run's manifest, and a resume on other data is refused."""
        return self.run.data(name)

    def task(self, name: str) -> Task:
        """The task behind a data name such as `builtin:walks`: its rows, its own reward, its process."""
        return tasks.task(name, self.run.plan.loose if self.run.plan else ())

    def encode(
        self,
        record: Record,
        *,
        answer: str | None = "completion",
        where: str = "",
        longest: int | None = None,
        new_tokens: int = 0,
    ) -> Encoded:
        """A record as token ids: its `prompt`, and the answer in the field `answer` (None: the answer will be drawn).

        where: which record it is, as `Rows.placed` says it; errors begin with it. longest: positions there are for
        prompt, answer and `new_tokens` to be drawn. Raises DataError for a field that is missing or not text, and for a
        record that is too long.
        """
        return encode.encode(self.tokenizer, record, answer=answer, where=where, longest=longest, new_tokens=new_tokens)

    def encode_turn(self, previous: Sequence[Mapping[str, Any]], message: str) -> list[int]:
        """The ids that one more turn adds behind the chat messages `previous`; plain text has none before it."""
        return encode.encode_turn(self.tokenizer, previous, message)

    def collected(self, phase: str) -> sources.Rows:
        """The comparisons that an earlier phase collected."""
        return self.run.collected(phase)

    def take(self, total: int, n: int) -> list[int]:
        """Which `n` of `total` rows belong to this step: each epoch in a new order, nothing to save.

        In an evaluation: file order, and fewer rows, then none, when they run out.
        """
        s = self._shared
        start = s.step * n
        if s.evaluation:
            return list(range(start, min(start + n, total)))
        found = []
        for position in range(start, start + n):
            epoch, at = divmod(position, total)
            where = (self.instance, total, epoch)
            if where not in s.orders:
                s.orders = {k: v for k, v in s.orders.items() if k[2] == epoch - 1}
                generator = rng.generator(s.seed, s.phase, self.instance, "order", epoch)
                s.orders[where] = torch.randperm(total, generator=generator).tolist()
            found.append(s.orders[where][at])
        return found

    # -- models

    def role_named(self, name: str) -> Role:
        """A model by role, e.g. `policy`."""
        roles = self._shared.roles
        if name not in roles:
            raise PluginError(
                f"'{self.instance}' asks for role '{name}'{nearest(name, roles)}",
                f"roles here: {', '.join(roles)}; make others in setup: ctx.role('{name}', …)",
            )
        return roles[name]

    def role_with(self, head: str) -> str:
        """The name of the role that has a head, e.g. whose `value` an advantage should read."""
        found = [name for name, role in self._shared.roles.items() if head in role.heads]
        if not found:
            raise PluginError(
                f"'{self.instance}' needs a head '{head}' on some role",
                "name a component that brings one (hookline plugins list)",
            )
        return found[0]

    def role(
        self,
        name: str,
        *,
        of: str = "policy",
        phase: str | None = None,
        frozen: bool = False,
        heads: Mapping[str, Callable[[int], nn.Module]] | None = None,
    ) -> Role:
        """Make a role, in `setup`: a copy of another role as it is at phase start, or the end of an earlier phase.

        heads: those of that phase's end to take along, each with what makes it. Asking again for the same name gives
        the same role. A frozen copy of a policy whose adapter is new is the
        policy with its adapter off. Frozen roles are rebuilt on resume and their hash compared.
        """
        s = self._shared
        if name in s.roles:
            return s.roles[name]
        self._only_in_setup(f"role '{name}'")
        if phase is not None:
            made = s.load_phase(phase, name, heads or {})
        elif frozen and self.role_named(of).adapter_fresh:
            made = self.role_named(of).without_adapter(name)
        else:
            made = self.role_named(of).copy(name)
        if frozen:
            if not made.adapter_off:
                made.freeze()
            s.derived.append(name)
        s.roles[name] = made
        return made

    def head(
        self,
        name: str,
        make: Callable[[int], nn.Module],
        *,
        role: str = "policy",
        reads: Side = "before",
    ) -> None:
        """Put a head on a role's trunk, in `setup`: `make(hidden_size)` gives a module to [..., 1] or [..., k].

        `ctx.stats(batch, role, want=(name,))` reads it; `reads` says whether a token's figure comes from the state
        before it (values) or after it (rewards), or, `row`, is one per row, on its last chosen token. The model's family
        must have that side.
        """
        self._only_in_setup(f"head '{name}'")
        self.role_named(role).add_head(name, make, reads, (self._shared.seed, self.phase, role))

    def target(self, name: str, of: str, *, role: str = "policy") -> None:
        """A frozen copy of a head, in `setup`, for slow targets; move it with `polyak` from `after=` of `ctx.train`."""
        self._only_in_setup(f"target '{name}'")
        owner = self.role_named(role)
        if name not in owner.heads:
            copied = copy.deepcopy(owner.heads[of])
            for parameter in copied.parameters():
                parameter.requires_grad_(False)
            owner.heads[name] = copied

    @torch.no_grad()
    def polyak(self, name: str, of: str, share: float, *, role: str = "policy") -> None:
        """Polyak: move the target by `share` of the way to the head it follows."""
        owner = self.role_named(role)
        for slow, fast in zip(owner.heads[name].parameters(), owner.heads[of].parameters()):
            slow.lerp_(fast, share)

    def blend(self, name: str, of: str, share: float, *, role: str = "policy") -> None:
        """The old name of `polyak`."""
        renamed("ctx.blend", "polyak")
        self.polyak(name, of, share, role=role)

    def _only_in_setup(self, what: str) -> None:
        if not self._shared.settling:
            raise PluginError(
                f"'{self.instance}' makes {what} after the phase began", "make it in setup(ctx), before state loads"
            )

    # -- statistics and training

    def stats(self, batch: Batch, model: str = "policy", want: Sequence[str] = ("logprobs",)) -> Stats:
        """Figures per token without gradient, [B, T] float32, 0 where the mask is false; cached per weights version.

        want: any of `logprobs`, `entropy`, `logsumexp`, `sum_sq_probs`, `top_p_mass`, `rank`, and heads of that role. A
        head over the vocabulary has these too, e.g. `q.logsumexp`, without its [B, T, V] ever being there.
        Log-probs are taken under the batch's own sampling (temperature and kept ids), so ratios are on one support.
        """
        role = self.role_named(model)
        tokens = (batch.prompt_ids_BP, batch.prompt_length_B, batch.token_ids_BT, batch.mask_BT)
        of = (*tokens, getattr(batch, "behaviour", None), role)
        place = tuple(map(id, of))  # the cache holds on to what it is about, so that an id means one thing
        held = self._shared.cache.get(place)
        changed = next((name for name, tensor in held[2].items() if tensor._version), None) if held else None
        if changed:
            raise PluginError(
                f"somebody changed the statistic '{changed}' in place", "work on a copy: others read it later"
            )
        if held and held[1] == role.version:
            missing = [name for name in want if name not in held[2]]
        else:
            held, missing = None, list(want)
        if missing:
            fresh = statistics(role, batch, missing, self._shared.micro_tokens)
            found = Stats({**(held[2] if held else {}), **{name: value.clone() for name, value in fresh.items()}})
            self._shared.cache[place] = (of, role.version, found)
            held = self._shared.cache[place]
        assert held is not None
        return Stats({name: held[2][name] for name in want})

    def train(
        self,
        batch: B,
        loss: Callable[[MicroBatch[B]], Loss],
        unit: Literal["row", "group"] = "row",
        after: Callable[[], None] | None = None,
        beside: tuple[Batch, Callable[[MicroBatch[Any]], Loss]] | None = None,
    ) -> None:
        """Epochs × minibatches optimiser steps of `loss`, whose gradient does not depend on how rows are split.

        loss: from a micro-batch to `mb.token_mean`, `mb.row_mean`, `mb.mean_over`, their sums and multiples; each is
        divided by the count of the whole optimiser step. unit: `group` keeps rows of a group together. after: called
        behind each optimiser step. beside: other rows and their loss, split into as many parts, whose gradient joins each
        optimiser step. Raises NumbersError before any weight changes when a value is not finite.
        """
        if self._shared.trainer is None and self._slot and self._slot.kind == "update":
            raise PluginError(f"'{self.instance}' has no learning rate", "derive its Config from hookline.UpdateConfig")
        if self._shared.trainer is None or (self._slot and self._slot.kind != "update"):
            raise PluginError(f"'{self.instance}' trains, but only an update may", "call ctx.train in hookline_update")
        self._shared.cache.clear()
        self._shared.trainer.train(batch, loss, unit, after, beside)
        self._shared.cache.clear()

    def draw(
        self,
        prompts: Sequence[Sequence[int]],
        sample_B: Tensor,
        *,
        sampling_: Sampling,
        max_new_tokens: int,
        model: str = "policy",
        beside: Sequence[str] = (),
        combine: Callable[[Mapping[str, NextToken]], Tensor] | None = None,
        greedy_B: Tensor | None = None,
    ) -> Completions:
        """Answers from a role, one per prompt of token ids, drawn by the phase's engine.

        A row's random numbers come from the run's seed and its sample id alone.
        combine: from what `model` and the roles `beside` it say about the next token (logits, heads) to the logits
        [B, V] that are drawn from, e.g. a mixture of two policies, or a policy guided by values. greedy_B: rows that take
        the likeliest token each time; their log-probs are those of sampling all the same.
        Raises PluginError where the engine cannot do this, or the model does not decode.
        """
        s = self._shared
        place = ("evaluation", s.evaluation) if s.evaluation else (s.phase,)
        return s.drawing.draw(
            self,
            prompts,
            sample_B,
            sampling=sampling_,
            max_new_tokens=max_new_tokens,
            seed=rng.key(s.seed, *place, "draw"),
            model=model,
            beside=beside,
            combine=combine,
            greedy_B=greedy_B,
        )

    def wait(self, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
        """Run a coroutine on the run's event loop and return what it answers. Not for coroutines, which `await` it."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._shared.answers.run(coroutine, context=contextvars.copy_context())
        coroutine.close()
        raise PluginError(f"'{self.instance}' calls ctx.wait inside a coroutine", "write await there")

    # -- figures, over all ranks

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        """Add to a declared figure of this step; `count` is its weight when means join."""
        if not self.evaluating:
            self._shared.metrics.add(name, float(value), count, f"'{self.instance}'")

    def sum(self, x: Tensor) -> float:
        """Sum over all entries on all ranks."""
        return self.world.sum(float(x.double().sum()))

    def mean(self, x: Tensor) -> float:
        """Mean over all entries on all ranks; 0 when there are none."""
        return self.sum(x) / max(1, self.world.sum(x.numel()))

    def max(self, x: Tensor) -> float:
        """Largest entry on all ranks."""
        return self.world.max(float(x.max()))

    # -- answers that come late

    async def each(
        self, rollout: Rollout, ask: Callable[[int], Awaitable[float]], *, timeout: float = 30.0, retries: int = 0
    ) -> Term:
        """Ask about every row at once. A row that fails or takes too long, `retries` times more, is not judged.

        Answers are journaled before use, by (phase, evaluation and its step, instance, step, sample id, call): a resumed
        run reads them, not the clock.
        """

        s = self._shared
        evaluation = f"{s.evaluation}@{s.evaluated_at}" if s.evaluation else ""
        call = s.asked[evaluation, self.instance] = s.asked.get((evaluation, self.instance), -1) + 1

        async def one(row: int) -> float | None:
            place = [s.phase, evaluation, self.instance, self.step, int(rollout.sample_B[row]), call]
            known, answer = self.run.journal.find(place)
            value: float | None = answer
            if known:
                return value
            for _ in range(retries + 1):
                try:
                    value = float(await asyncio.wait_for(ask(row), timeout))
                    break
                except (TimeoutError, OSError, ServiceError):
                    continue
            if self.run.locked and (value is None or math.isfinite(value)):
                self.run.journal.add(place, value)
            return value

        answers = await asyncio.gather(*(one(row) for row in range(len(rollout))))
        ok = torch.tensor([a is not None for a in answers], dtype=torch.bool)
        return Term(torch.tensor([a or 0.0 for a in answers]), ok)
