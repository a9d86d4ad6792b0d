"""Find the compiled kernels, or explain in one sentence why the reference runs instead."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

INTERFACE = 6
"""The required value of `_native.INTERFACE` in C++; it is raised whenever a binding's arguments change."""

CUDA_INTERFACE = 1
"""The required value of `_cuda.INTERFACE`."""

BUILD_RECORD = Path(__file__).with_name("build.json")
"""The result of the build, written by setup.py."""

_SETTINGS = ("auto", "require", "reference")
_BACKENDS = ("auto", "cpu", "cuda", "reference")


def _read_build_record() -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(BUILD_RECORD.read_text())
    except (OSError, ValueError):
        return {}
    return record


def _import(name: str, interface: int, missing: str) -> tuple[ModuleType | None, str]:
    """A compiled module, or None and the reason."""
    try:
        found = importlib.import_module(f"hookline.{name}")
    except ModuleNotFoundError:
        return None, missing
    except ImportError as err:
        return None, f"the compiled module cannot be loaded ({err}); pip install hookline again on this machine"
    if getattr(found, "INTERFACE", None) != interface:
        return None, "the compiled module is older than these sources; pip install hookline again"
    return found, ""


def _load() -> tuple[ModuleType | None, str, ModuleType | None, str]:
    """The module for CPUs, or None and the reason; the same for GPUs. `require` refers to the module for CPUs."""
    setting = os.environ.get("HOOKLINE_KERNELS") or "auto"
    if setting not in _SETTINGS:
        raise ValueError(f"HOOKLINE_KERNELS is {setting!r}; choose from {', '.join(_SETTINGS)}")
    if setting == "reference":
        return None, "HOOKLINE_KERNELS=reference", None, "HOOKLINE_KERNELS=reference"
    record = _read_build_record()
    missing = (
        record.get("failed")
        or "the compiled module is missing; install a C++17 compiler and pip install hookline again"
    )
    module, why = _import("_native", INTERFACE, str(missing))
    if module is None and setting == "require":
        raise RuntimeError(f"HOOKLINE_KERNELS=require, but {why}")
    missing = (
        record.get("cuda_failed") or "no CUDA kernels are built in; pip install hookline again with nvcc and a GPU"
    )
    return module, why, *_import("_cuda", CUDA_INTERFACE, str(missing))


module, why_reference, cuda_module, why_no_cuda = _load()
_backend = "auto"


def on_cpu() -> bool:
    """Whether a compiled kernel is used for tensors on the CPU."""
    return module is not None and _backend != "reference"


def use_native(device: torch.device) -> bool:
    """Whether a compiled kernel is used for tensors on this device."""
    if device.type == "cpu":
        return on_cpu()
    return _backend != "reference" and cuda_module is not None and device.type == "cuda"


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Choose the implementation inside a `with` block, for the whole process.

    `"auto"`: compiled kernels where they exist, else the reference. `"cpu"`, `"cuda"`: as `auto`, but raise an error
    if that device has no compiled kernels. `"reference"`: plain torch, the same results up to rounding.

    Raises ValueError for an unknown name, RuntimeError if the requested compiled kernels do not exist.
    """
    global _backend
    if name not in _BACKENDS:
        raise ValueError(f"backend {name!r} does not exist; choose from {', '.join(_BACKENDS)}")
    if name == "cuda" and cuda_module is None:
        raise RuntimeError(f"backend 'cuda': {why_no_cuda}; until then tensors on a GPU use the reference")
    if name == "cpu" and module is None:
        raise RuntimeError(f"backend 'cpu': {why_reference}")
    before, _backend = _backend, name
    try:
        yield
    finally:
        _backend = before


def build_info() -> dict[str, Any]:
    """Which kernels run, and why. JSON-ready, for the first line of a run and for `hookline doctor`.

    - `kernels`: `"native (cpu avx512)"`, `"native (cpu avx512, cuda)"` if a GPU is used, or `"reference"`;
    - `why`: the reason why the reference runs, else `""`;
    - `instruction_set`, `instruction_sets`: the one in use, and all that were compiled (None and [] without native code);
    - `threads`: how many threads a kernel uses now (torch's setting); `openmp`: whether the build uses OpenMP;
    - `compiler`: of the build; `platform`: of this machine; `cuda`: whether CUDA kernels are built in;
    - `cuda_why`: the reason why they are not, else `""`; `cuda_distrusted`: ops whose CUDA kernel differed from the
      reference on this GPU, in this process, and how.
    """
    info: dict[str, Any] = {
        "kernels": "reference",
        "why": why_reference,
        "instruction_set": None,
        "instruction_sets": [],
        "openmp": False,
        "compiler": None,
        "cuda": cuda_module is not None,
        "cuda_why": why_no_cuda,
        "cuda_distrusted": {},
        "platform": f"{sys.platform} {os.uname().machine}" if hasattr(os, "uname") else sys.platform,
        "threads": torch.get_num_threads(),
    }
    if module is not None:
        info |= module.build_info()
        info["kernels"] = f"native (cpu {info['instruction_set']})"
    if cuda_module is not None:
        from . import cuda

        info |= cuda_module.build_info()
        info["cuda_distrusted"] = cuda.distrusted()
        if torch.cuda.is_available():
            info["kernels"] = f"{info['kernels'][:-1]}, cuda)" if module is not None else "native (cuda)"
    return info
