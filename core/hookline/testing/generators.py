"""The global random generators that every part of a process shares, and whether they were used."""

from __future__ import annotations

import pickle
import random

import numpy as np
import torch

__all__ = ["differing", "states"]


def states() -> dict[str, bytes]:
    """The state of each global generator of the CPU: of Python's `random`, of NumPy and of torch."""
    return {
        "random": pickle.dumps(random.getstate()),
        "numpy.random": pickle.dumps(np.random.get_state()),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }


def differing(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    """The names of the generators whose state has changed."""
    return [name for name, state in after.items() if state != before[name]]
