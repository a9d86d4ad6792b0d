"""One call of a function of the user's: in this thread, in a thread with a time limit, or awaited on the run's event loop."""

from __future__ import annotations

import asyncio
import inspect
import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hookline_plugins.rewards.verdicts import Verdict, Wrong, of_batch, of_row

HUNG = 4
"""Calls of a function that may still run after their timeout, each in a thread that nothing can end."""


class Late(Exception):
    """A call took longer than its timeout."""


def logging(names: Sequence[str]) -> tuple[dict[str, Callable[..., None]], Verdict]:
    """The functions that a call logs with, and what they have logged. `log_extra` keeps nothing: there is no table for it."""
    kept = Verdict([])

    def log_metric(name: str, value: Any) -> None:
        kept.add(name, [value])

    def log_extra(column: str, values: Any) -> None:
        return None

    found: dict[str, Callable[..., None]] = {"log_metric": log_metric, "log_extra": log_extra}
    return {name: found[name] for name in names}, kept


def call(function: Callable[..., Any], keywords: Mapping[str, Any], logs: Sequence[str], count: int, seed: int | None) -> Verdict:
    """Call a plain function for `count` answers (0: one answer, not in a list), with the global random generators at `seed`."""
    tools, kept = logging(logs)
    with seeded(seed):
        returned = function(**keywords, **tools)
    return judged(returned, kept, count)


async def awaited(
    function: Callable[..., Any], keywords: Mapping[str, Any], logs: Sequence[str], count: int, timeout: float | None
) -> Verdict:
    """Await an async function. Raises Late after `timeout` seconds; a TimeoutError of its own passes through."""
    tools, kept = logging(logs)
    try:
        async with asyncio.timeout(timeout) as limit:
            returned = await function(**keywords, **tools)
    except TimeoutError:
        if limit.expired():
            raise Late from None
        raise
    return judged(returned, kept, count)


def judged(returned: Any, kept: Verdict, count: int) -> Verdict:
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise Wrong("an awaitable; define it with `async def`")
    verdict = of_batch(returned, count) if count else of_row(returned)
    for name, values in kept.figures.items():
        verdict.add(name, values)
    return verdict


class Threads:
    """Calls in daemon threads, so that a time limit can be kept; a call that hangs stays behind in its thread."""

    def __init__(self) -> None:
        self.hung: list[threading.Thread] = []

    def within(self, timeout: float, work: Callable[[], Verdict]) -> Verdict:
        """The result of `work()`, or Late. Raises Wrong when too many calls still run."""
        self.hung = [thread for thread in self.hung if thread.is_alive()]
        if len(self.hung) >= HUNG:
            raise Wrong(f"nothing: {HUNG} of its calls still run after their timeout, and a thread cannot be ended; set process: true")
        done: list[tuple[Verdict | None, BaseException | None]] = []

        def run() -> None:
            try:
                done.append((work(), None))
            except BaseException as err:  # raised again in the caller's thread
                done.append((None, err))

        thread = threading.Thread(target=run, daemon=True, name="hookline-reward-function")
        thread.start()
        thread.join(timeout)
        if not done:
            self.hung.append(thread)
            raise Late
        verdict, err = done[0]
        if err is not None:
            raise err
        assert verdict is not None
        return verdict


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """The global random generators of Python, and of NumPy and torch if they are imported, at a seed; afterwards as they were."""
    if seed is None:
        yield
        return
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    before = random.getstate(), numpy and numpy.random.get_state(), torch and torch.get_rng_state()
    random.seed(seed)
    if numpy:
        numpy.random.seed(seed % 2**32)
    if torch:
        torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        if numpy:
            numpy.random.set_state(before[1])
        if torch:
            torch.set_rng_state(before[2])
