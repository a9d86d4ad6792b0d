"""Drawing answers in this process: batched decoding with a family's own state; each sample has its own seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import torch
from pydantic import Field
from torch import Tensor

from hookline.batch.stages import Batch
from hookline.contract import fields
from hookline.contract.context import Context
from hookline.contract.engine import Completion, Engine, Request
from hookline.inference.decode import SLOTS, decode
from hookline.inference.fixed import Fixed
from hookline.models.role import Role
from hookline.training.statistics import statistics

__all__ = ["Local"]


class Local(Engine):
    """In this process, with the roles' own weights. Requests that wait in one turn of the event loop are one batch."""

    class Config(fields.Config):
        slots: int = Field(SLOTS, ge=1)
        """The most answers drawn at a time. Prompts that wait take the places of answers that have ended, so one long answer
        does not hold the others; fewer need less memory."""

        exact: bool = False
        """An answer is the same to the last bit whatever is drawn beside it, on one machine and number of threads: batches always
        have `slots` rows with room for `positions` tokens, and each prompt is read alone. It takes longer."""
        positions: int = Field(0, ge=0)
        """With `exact`: the most tokens of a prompt and its answer; 0: what the model has positions for. Fewer need less time."""

    @property
    def gives(self) -> set[str]:
        every = {"kept-ids", "penalties", "score", "stop-strings"}
        return every | {"exact" if self.config.exact else "combine"}

    def setup(self, ctx: Context) -> None:
        self.role_named = cast("Callable[[str], Role]", ctx.role_named)
        self.text = ctx.tokenizer.decode
        self.checked: set[str] = set()
        """Roles that the exact mode was tried with."""
        self.waiting: list[tuple[Request, asyncio.Future[Completion]]] = []

    async def draw(self, request: Request) -> Completion:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Completion] = loop.create_future()
        self.waiting.append((request, answer))
        if len(self.waiting) == 1:
            loop.call_soon(self._answer)
        return await answer

    def _answer(self) -> None:
        """Draw all waiting requests: those that differ only in prompt, sample and `greedy` are one batch, in order."""
        waiting, self.waiting = self.waiting, []
        batches: dict[tuple[object, ...], list[tuple[Request, asyncio.Future[Completion]]]] = {}
        for request, answer in waiting:
            r = request
            alike = (r.role, r.beside, r.combine, r.sampling, r.max_new_tokens, r.ends, r.seed)
            batches.setdefault(alike, []).append((request, answer))
        for together in batches.values():
            try:
                drawn = self._draw([request for request, _ in together])
            except Exception as err:
                for _, answer in together:
                    if not answer.done():
                        answer.set_exception(err)
                continue
            for (_, answer), completion in zip(together, drawn):
                if not answer.done():
                    answer.set_result(completion)

    def _draw(self, requests: Sequence[Request]) -> list[Completion]:
        first = requests[0]
        fixed = Fixed(self.config.slots, self.config.positions) if self.config.exact else None
        if fixed and first.role not in self.checked:
            fixed.check(self.role_named(first.role), first.eos)
            self.checked.add(first.role)
        return decode(
            {name: self.role_named(name) for name in (first.role, *first.beside)},
            [request.prompt for request in requests],
            torch.tensor([request.sample for request in requests], dtype=torch.long),
            torch.tensor([request.greedy for request in requests]),
            sampling=first.sampling,
            max_new_tokens=first.max_new_tokens,
            ends=first.ends,
            seed=first.seed,
            combine=first.combine,
            slots=self.config.slots,
            text=self.text,
            fixed=fixed,
        )

    async def score(self, role: str, token_ids: Sequence[int]) -> Tensor:
        scoring = self.role_named(role)
        row = Batch.of_ids([token_ids[:1]], [token_ids[1:]])
        return statistics(scoring, row, ("logprobs",), len(token_ids)).logprobs_BT[0, : len(token_ids) - 1]
