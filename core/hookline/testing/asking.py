"""The context of the harness: `ctx.each` as in a run, with delays and failures of the service where a law wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from hookline.batch.stages import Rollout, Term
from hookline.errors import ServiceError
from hookline.loop.context import PhaseContext

__all__ = ["Asking", "Service"]

LATE = 0.002
"""Seconds between two answers that are delayed."""


@dataclass
class Service:
    """What happens to the questions that components ask through `ctx.each`."""

    asked: int = 0
    """The number of questions so far."""
    late: bool = False
    """Whether questions are delayed, the first row's the longest, so that rows are answered from the last to the first."""
    down: Collection[int] = ()
    """Sample ids for which the service fails."""


class Asking(PhaseContext):
    """The context of a phase, whose `each` goes through a `Service`; a view of one component keeps it."""

    service: Service

    async def each(
        self, rollout: Rollout, ask: Callable[[int], Awaitable[float]], *, timeout: float = 30.0, retries: int = 0
    ) -> Term:
        service, count = self.service, len(rollout)

        async def through(row: int) -> float:
            service.asked += 1
            if int(rollout.sample_B[row]) in service.down:
                raise ServiceError("the harness makes the service fail for this row")
            if service.late:
                await asyncio.sleep(LATE * (count - row))
            return await ask(row)

        return await super().each(rollout, through, timeout=timeout + LATE * count * service.late, retries=retries)
