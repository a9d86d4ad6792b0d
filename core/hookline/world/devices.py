"""From the word an experiment uses to the device its networks lie on."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hookline.errors import ExperimentError

__all__ = ["computes_in_bfloat16", "note", "resolve"]


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


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are fast there: GPUs from compute capability 8.0, and processors whose flags say so.

    Elsewhere torch converts each operand, so that bfloat16 is several times slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    flags: Mapping[str, object] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # not in torch 2.10, which then computes in float32
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))


def note(name: str) -> str:
    """What a person should know before networks lie there; empty where there is nothing to say."""
    return "device: mps is untried; compare a short run with device: cpu before relying on it" if name == "mps" else ""
