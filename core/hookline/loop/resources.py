"""What the views of all components of a phase have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hookline.inference.drawing import Drawing
from hookline.loop.scope import Training
from hookline.models.roles import Roles
from hookline.runs.run import Run
from hookline.tokens.encode import Encoding
from hookline.tokens.tokenizer import Tokenizer
from hookline.training.cache import StatsCache
from hookline.training.trainer import Trainer
from hookline.world.signals import Stopping
from hookline.world.world import World

__all__ = ["Resources"]


@dataclass
class Resources:
    """What the views of all components of a phase have in common."""

    run: Run
    tokenizer: Tokenizer
    training: Training
    steps: int
    roles: Roles
    stats: StatsCache
    rounds: Callable[[str], Sequence[str]]
    """From the name of an earlier phase to the names of all its rounds."""
    encoder: Callable[[str], Encoding]
    """From the folder of a model to what encodes rows for it."""
    answers: asyncio.Runner
    """The run's event loop."""
    drawing: Drawing
    """The engine of the phase, and the weights it was last told of."""
    world: World
    given: frozenset[str]
    advantage_by: str
    """The instance that answers hookline_advantage."""
    trainer: Trainer | None = None
    late: set[str] = field(default_factory=set)
    """The names that a notice about late answers has already mentioned."""
    stopping: Stopping = field(default_factory=Stopping)
    """Whether the run was asked to stop."""
    begun: int = 0
    """Steps that this process has begun in this phase."""
    failed: list[str] = field(default_factory=list)
    """The first failure of an answer that `ctx.each` asked for: which component asked, and the error."""
