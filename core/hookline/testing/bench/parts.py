"""Where the time of a step goes: seconds in each part of the code, without what that part calls of the others."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["PARTS", "timed_steps"]

PARTS = ("prefill", "decode", "draw", "score", "reference", "train", "optimiser", "rest")
"""Reading prompts · the network on one token per row · drawing tokens · log-probs of the policy without a gradient · those of
the reference · forward and backward with a gradient · clipping and the optimiser · hooks, rewards, batches and records."""


class Stopwatch:
    """Nested parts: while an inner one runs, the outer one's time stands still."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self.parts: list[str] = []
        self.since = 0.0
        self.role = "score"
        """The part that the last forward pass belonged to, which its output layer belongs to as well."""

    def _passed(self) -> None:
        import torch

        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.parts:
            self.seconds[self.parts[-1]] += now - self.since
        self.since = now

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        self._passed()
        self.parts.append(part)
        try:
            yield
        finally:
            self._passed()
            self.parts.pop()


@contextmanager
def timed_steps() -> Iterator[list[dict[str, float]]]:
    """Within the block, every step of a run in this process adds its seconds per part (`PARTS`) to the list that is given.

    Whole steps, without evaluations and saves, which are between them. `step` is their wall time, by a clock of its own, and the
    sum of the parts. On a GPU, each part waits until its work is done, which costs what they would do at the same time.
    """
    import torch

    from hookline import kernels
    from hookline.inference import decode
    from hookline.loop.loop import PhaseLoop
    from hookline.models.role import Role
    from hookline.training.optim import Optimiser
    from hookline.training.trainer import Trainer

    watch = Stopwatch()

    def of_role(role: Any, *_: Any, **__: Any) -> str:
        reads = role.name == "reference"
        watch.role = "reference" if reads else "train" if torch.is_grad_enabled() else "score"
        return watch.role

    timed: list[tuple[Any, str, Callable[..., str]]] = [
        (Role, "prefill", lambda *_, **__: "prefill"),
        (Role, "step", lambda *_, **__: "decode"),
        (decode, "draw_token", lambda *_, **__: "draw"),
        (Role, "states", of_role),
        (Role, "logits", of_role),
        (kernels, "linear_token_stats", lambda *_, **__: watch.role),
        (Trainer, "_gradient", lambda *_, **__: "train"),
        (Trainer, "_clip", lambda *_, **__: "optimiser"),
        (Optimiser, "step", lambda *_, **__: "optimiser"),
    ]
    before = [(where, name, getattr(where, name)) for where, name, _ in timed]
    step = PhaseLoop.step

    @functools.wraps(step)
    def whole(loop: PhaseLoop, *args: Any, **given: Any) -> Any:
        watch.seconds.clear()  # of what was drawn for an evaluation
        began = time.perf_counter()
        with watch.within("rest"):
            found = step(loop, *args, **given)
        watch.steps.append({part: watch.seconds[part] for part in PARTS} | {"step": time.perf_counter() - began})
        return found

    for where, name, part in timed:
        setattr(where, name, _in_part(watch, getattr(where, name), part))
    PhaseLoop.step = whole  # type: ignore[method-assign, assignment]
    try:
        yield watch.steps
    finally:
        PhaseLoop.step = step  # type: ignore[method-assign]
        for where, name, function in before:
            setattr(where, name, function)


def _in_part(watch: Stopwatch, function: Callable[..., Any], part: Callable[..., str]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        with watch.within(part(*args, **given)):
            return function(*args, **given)

    return call
