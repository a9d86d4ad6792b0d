"""Resolves the device that an experiment names."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hookline.errors import ExperimentError

__all__ = ["computes_in_bfloat16", "note", "resolve"]


def resolve(name: str, local: int = 0) -> torch.device:
    """The device that `auto`, `cpu`, `cuda`, `cuda:N` or `mps` means on this machine.

    `auto` is the GPU with the number `local`, the rank among this machine's processes, or the CPU if there is none.
    Raises ExperimentError if the device is not available.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        if not local:
            return torch.device("cuda", 0)
        name = f"cuda:{local}"
    if name == "mps" and not torch.backends.mps.is_available():
        raise ExperimentError("device: mps is not available in this process", "use device: auto")
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            why = "torch is built without CUDA" if torch.version.cuda is None else "torch finds no GPU"
            raise ExperimentError(f"device: {name} is not available in this process: {why}", "use device: auto or cpu")
        number, there = int(name.partition(":")[2] or 0), torch.cuda.device_count()
        if number >= there:
            has = "cuda:0" if there == 1 else f"cuda:0 to cuda:{there - 1}"
            raise ExperimentError(
                f"device: {name} is not available; torch finds {has}", f"use device: cuda:{there - 1}"
            )
        return torch.device("cuda", number)
    return torch.device(name)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32: on GPUs from compute capability 8.0, on CPUs with
    AMX, and on AMD's with AVX-512's bfloat16.

    Intel's processors with AVX-512's bfloat16 but without AMX need twice float32's time for a product. On other devices
    torch converts each operand, so that bfloat16 is several times slower.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    # torch 2.10 does not have the function, and then computes in float32
    cpu: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(cpu.get("amx_bf16") or (cpu.get("avx512_bf16") and "Intel" not in str(cpu.get("cpu_name"))))


def note(name: str) -> str:
    """A notice about a device, or an empty text."""
    return "device: mps is untested; compare a short run with device: cpu before relying on it" if name == "mps" else ""
