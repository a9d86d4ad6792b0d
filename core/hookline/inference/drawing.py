"""What `ctx.draw` does: one request per prompt to the phase's engine, and the answers joined into one block."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from hookline import kernels
from hookline.batch.columns import pad_rows
from hookline.batch.stages import Rollout, Sampling
from hookline.contract.engine import ABILITIES, Completion, Completions, Engine, Request
from hookline.errors import ExperimentError, NumbersError, PluginError
from hookline.inference.completions import Asked, join
from hookline.inference.decode import NextToken
from hookline.models.role import Role
from hookline.registry.blame import blame
from hookline.registry.slot import Slot
from hookline.storage.lines import finite
from hookline.training.statistics import statistics

__all__ = ["Asking", "Drawing"]

Answer = TypeVar("Answer")

COMPARED_ROWS = 4
"""The number of rows of a batch that are computed again."""
COMPARED_EVERY = 32
"""After a role's first batch, one batch in so many is compared again."""
EXACT, ROUNDED = 1.0005, 1.05
"""The largest accepted mean exp|Δ log-prob| between engine and role: in float32, and in fewer bits."""


class Asking(Protocol):
    """What `Drawing` needs of the component that draws."""

    @property
    def instance(self) -> str:
        """Its name, for messages."""

    def role_named(self, name: str) -> Role:
        """A model by role."""

    def wait_for(self, coroutine: Coroutine[Any, Any, Answer], who: str) -> Answer:
        """Run a coroutine on the run's event loop. who: the name that a notice shows when the answer takes long."""


class Caller:
    """The caller's `combine` in a draw: an error in it is the caller's, not the engine's."""

    def __init__(self, combine: Callable[[Mapping[str, NextToken]], Tensor] | None) -> None:
        self._combine = combine
        self.failed: Exception | None = None

    def combine(self, said: Mapping[str, NextToken]) -> Tensor:
        assert self._combine is not None
        try:
            return self._combine(said)
        except Exception as err:
            self.failed = err
            raise


@dataclass
class Drawing:
    """A phase's engine, and the versions of the weights it was last told of."""

    engine: Engine
    ends: tuple[int, ...]
    """The tokens that end every answer; a sampling may name more."""
    micro_tokens: int = 16384
    """The most tokens in one forward pass for log-probs, if the engine returns none."""
    told: dict[str, int] = field(default_factory=dict)
    drawn: dict[str, int] = field(default_factory=dict)
    """Roles for which the engine's log-probs were found equal to those of the role's own forward pass, and how many batches each
    has drawn from there on."""
    padded: set[str] = field(default_factory=set)
    """Those of them that were compared on prompts of different length."""
    folder: Path | None = None
    """Where the rows of a comparison that failed are written."""
    rank: int = 0
    """The rank that draws, for the name of that file."""
    slot: Slot | None = None
    """The engine's place in the phase, for blame."""

    @property
    def who(self) -> str:
        """The engine's name, for messages."""
        return str(self.slot.offer) if self.slot else f"engine '{self.engine.instance}'"

    def blamed(self, what: str) -> AbstractContextManager[None]:
        """Within the block, an error names the engine and what it was doing."""
        return blame(self.slot, what, late=True) if self.slot else nullcontext()

    def draw(
        self,
        asking: Asking,
        prompts: Sequence[Sequence[int]],
        sample_B: Tensor,
        *,
        sampling: Sampling,
        max_new_tokens: int,
        seed: int,
        model: str = "policy",
        beside: Sequence[str] = (),
        combine: Callable[[Mapping[str, NextToken]], Tensor] | None = None,
        greedy_B: Tensor | None = None,
    ) -> Completions:
        """One answer per prompt of token ids, in order; see `hookline.Context.draw`.

        A role's first batch, and one in `COMPARED_EVERY` after it, is compared with what the role computes itself. Raises
        PluginError if the engine or the model does not support the request, ExperimentError if a prompt and its answer do
        not fit into the model, NumbersError if the engine's log-probs differ from those of the role.
        """
        role = asking.role_named(model)
        self._check(asking.instance, role, prompts, sampling, max_new_tokens, combine is not None)
        caller, ends = Caller(combine), sampling.ending(self.ends, role.vocabulary)
        greedy = [False] * len(prompts) if greedy_B is None else greedy_B.tolist()
        requests = [
            Request(
                role=model,
                prompt=prompt,
                sample=sample,
                seed=seed,
                sampling=sampling,
                max_new_tokens=max_new_tokens,
                ends=ends,
                greedy=likeliest,
                beside=tuple(beside),
                combine=caller.combine if combine else None,
            )
            for prompt, sample, likeliest in zip(prompts, sample_B.tolist(), greedy)
        ]
        for name in (model, *beside):
            version = asking.role_named(name).version
            if self.told.get(name) != version:
                with self.blamed("sync"):
                    self.engine.sync(name, version)
                self.told[name] = version
        found = self._answers(asking, requests, caller)
        asked = Asked(sampling, max_new_tokens, ends, role.vocabulary, role.version)
        with self.blamed("draw"):
            drawn = join(found, asked, self.who)
        if any(one.logprobs is None for one in found):
            logprobs_BT = own_logprobs(role, prompts, sample_B, drawn, self.micro_tokens)
            drawn = replace(drawn, behaviour=replace(drawn.behaviour, logprobs_BT=logprobs_BT))
        elif combine is None:
            count = self.drawn.get(model, 0)
            due = count % COMPARED_EVERY == 0 or (model not in self.padded and _uneven(prompts))
            with self.blamed("draw"):
                if not due or self._compare(asking, prompts, sample_B, found, asked, model):
                    self.drawn[model] = count + 1
        return drawn

    def _compare(
        self,
        asking: Asking,
        prompts: Sequence[Sequence[int]],
        sample_B: Tensor,
        found: Sequence[Completion],
        asked: Asked,
        model: str,
    ) -> bool:
        """Compute a few rows again, in one forward pass in the type of the role's weights and without compiled kernels: the engine
        must agree.

        Returns whether there was something to compare. Rows of older weights cannot be computed again; if a batch has no other
        rows, the next batch is compared.
        """
        role = asking.role_named(model)
        if "before" not in role.family.sides:
            return False
        now = [row for row, one in enumerate(found) if bool((one.versions == role.version).all())]
        if not now:
            return False
        now.sort(key=lambda row: len(prompts[row]))  # the shortest prompts have the most padding
        now = _some(now, self.drawn.get(model, 0) // COMPARED_EVERY)
        few = join([found[row] for row in now], asked, self.who)
        with kernels.backend("reference"), role.without_autocast():
            own_BT = own_logprobs(role, [prompts[row] for row in now], sample_B[now], few, self.micro_tokens)
        mask_BT = torch.arange(few.token_ids_BT.shape[1]) < few.length_B[:, None]
        gap = float((own_BT - few.behaviour.logprobs_BT)[mask_BT].double().abs().exp().mean())
        precise = role.autocast is None and all(p.dtype == torch.float32 for p in role.net.parameters())
        most = EXACT if precise else ROUNDED
        if not gap <= most:  # NaN included
            kept = self._keep(role, [prompts[row] for row in now], few, own_BT)
            raise NumbersError(
                f"{self.who} drew from role '{role.name}' with log-probs that differ from the role's own forward "
                f"pass: mean exp|Δ| is {gap:.6g} over {int(mask_BT.sum())} tokens of a batch, above {most:g}{kept}",
                "the engine must give each token's log-prob under the request's sampling, and the steps of family "
                f"'{role.family.instance}' must agree with its states",
            )
        if _uneven([prompts[row] for row in now]):
            self.padded.add(model)
        return True

    def _keep(self, role: Role, prompts: Sequence[Sequence[int]], few: Completions, own_BT: Tensor) -> str:
        """Write the rows of a comparison that failed, so that it can be looked into; returns where, for the message."""
        if self.folder is None:
            return ""
        rows = [
            {
                "prompt": list(prompts[row]),
                "token_ids": few.token_ids_BT[row, :length].tolist(),
                "engine": few.behaviour.logprobs_BT[row, :length].tolist(),
                "role": own_BT[row, :length].tolist(),
            }
            for row, length in enumerate(few.length_B.tolist())
        ]
        sampling = few.behaviour.sampling
        about = {"role": role.name, "version": role.version, "engine": self.who, "sampling": asdict(sampling), "rows": rows}
        path = self.folder / f"drift-{role.name}{f'-rank{self.rank}' if self.rank else ''}.json"
        try:
            path.write_text(json.dumps(finite(about), allow_nan=False), encoding="utf-8")
        except OSError as err:
            return f"; the rows could not be written to {path}: {err.strerror}"
        return f"; the rows are in {path}"

    def _answers(self, asking: Asking, requests: Sequence[Request], caller: Caller) -> list[Completion]:
        """Every answer, in the order of the requests; the first error is raised, blamed on the engine or the caller."""
        found: list[Completion] = []

        async def one(request: Request) -> Completion:
            try:
                return await self.engine.draw(request)
            except BaseException as err:
                with nullcontext() if err is caller.failed else self.blamed("draw"):
                    raise

        async def every() -> None:  # returns nothing: asyncio prints what a task returns, which takes long for tensors
            found.extend(await asyncio.gather(*map(one, requests)))

        asking.wait_for(every(), self.who)
        return found

    def _check(
        self,
        who: str,
        role: Role,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        max_new_tokens: int,
        combines: bool,
    ) -> None:
        role.family.require({"decodes"}, f"'{who}', which draws from role '{role.name}',")
        for ability, asked in (
            ("combine", combines), ("kept-ids", sampling.truncated), ("penalties", sampling.reshapes),
            ("stop-strings", bool(sampling.stop_strings)),
        ):  # fmt: skip
            if asked and ability not in self.engine.gives:
                raise PluginError(
                    f"'{who}' needs {ABILITIES[ability]} ('{ability}'), but engine '{self.engine.instance}' is not one",
                    "name another engine, e.g. engine: local",
                )
        sampling.check_length(max_new_tokens)
        most = role.vocabulary - 1
        for row, prompt in enumerate(prompts):
            if len(prompt) and not 0 <= min(prompt) <= max(prompt) <= most:
                odd = next(one for one in prompt if not 0 <= one <= most)
                raise PluginError(
                    f"'{who}' draws from role '{role.name}' with the token id {odd} in prompt {row}, but the model's ids "
                    f"go from 0 to {most}",
                    "give ids of ctx.tokenizer",
                )
        longest = max((len(prompt) for prompt in prompts), default=0)
        if longest + max_new_tokens > role.context:
            raise ExperimentError(
                f"a prompt of {longest} tokens and {max_new_tokens} new ones make {longest + max_new_tokens}, "
                f"but the model has {role.context} positions",
                "lower max_new_tokens, shorten the prompts, or build with a larger context",
            )


def _some(rows: Sequence[int], turn: int) -> list[int]:
    """`COMPARED_ROWS` of rows by length: as many of the shorter half as of the longer one, from the ends inwards, others each turn."""
    if len(rows) <= COMPARED_ROWS:
        return list(rows)
    middle, each = len(rows) // 2, COMPARED_ROWS // 2
    return [half[(turn * each + i) % len(half)] for half in (rows[:middle], rows[:middle-1:-1]) for i in range(each)]


def _uneven(prompts: Sequence[Sequence[int]]) -> bool:
    return len({len(prompt) for prompt in prompts}) > 1


def own_logprobs(
    role: Role, prompts: Sequence[Sequence[int]], sample_B: Tensor, drawn: Completions, micro_tokens: int
) -> Tensor:
    """Log-probs [B, T] of drawn answers under the role's own weights, for an engine that returns none."""
    prompt_ids_BP, prompt_length_B = pad_rows(prompts)
    rows = Rollout(
        prompt_ids_BP=prompt_ids_BP,
        prompt_length_B=prompt_length_B,
        token_ids_BT=drawn.token_ids_BT,
        length_B=drawn.length_B,
        mask_BT=torch.arange(drawn.token_ids_BT.shape[1]) < drawn.length_B[:, None],
        group_B=sample_B,
        sample_B=sample_B,
        records=({},) * len(sample_B),
        decode=lambda ids: "",
        finish_reason=drawn.finish_reason,
        source=(role.name,) * len(sample_B),
        behaviour=drawn.behaviour,
    )
    return statistics(role, rows, ("logprobs",), micro_tokens).logprobs_BT
