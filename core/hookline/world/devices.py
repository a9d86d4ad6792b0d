"""From the word an experiment uses to the device its networks lie on."""

from __future__ import annotations

import torch

from hookline.errors import ExperimentError

__all__ = ["note", "resolve"]


def resolve(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda`, `cuda:N` or `mps` means here.

    `auto` is the first GPU where there is one, else the CPU. Raises ExperimentError where the device is not there.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ExperimentError("device: mps is not available in this process", "use device: auto")
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            why = "torch is built without CUDA" if torch.version.cuda is None else "torch finds no GPU"
            raise ExperimentError(f"device: {name} is not available in this process: {why}", "use device: auto or cpu")
        number, there = int(name.partition(":")[2] or 0), torch.cuda.device_count()
        if number >= there:
            has = "cuda:0" if there == 1 else f"cuda:0 to cuda:{there - 1}"
            raise ExperimentError(f"device: {name} is not there; torch finds {has}", f"use device: cuda:{there - 1}")
        return torch.device("cuda", number)
    return torch.device(name)


def note(name: str) -> str:
    """What a person should know before networks lie there; empty where there is nothing to say."""
    return "device: mps is untried; compare a short run with device: cpu before relying on it" if name == "mps" else ""
