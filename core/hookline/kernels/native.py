"""Finds the compiled kernels, or says in one sentence why the reference runs instead."""

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

INTERFACE = 3
"""What the C++ side must answer as `_native.INTERFACE`; raised whenever a binding's arguments change."""

BUILD_RECORD = Path(__file__).with_name("build.json")
"""Written by setup.py: how the build went."""

_SETTINGS = ("auto", "require", "reference")
_BACKENDS = ("auto", "cpu", "cuda", "reference")


def _read_build_record() -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(BUILD_RECORD.read_text())
    except (OSError, ValueError):
        return {}
    return record


def _load() -> tuple[ModuleType | None, str]:
    """The compiled module, or None and the reason."""
    setting = os.environ.get("HOOKLINE_KERNELS") or "auto"
    if setting not in _SETTINGS:
        raise ValueError(f"HOOKLINE_KERNELS is {setting!r}; it can be {', '.join(_SETTINGS)}")
    if setting == "reference":
        return None, "HOOKLINE_KERNELS=reference"
    module, why = None, ""
    try:
        module = importlib.import_module("hookline._native")
    except ModuleNotFoundError:
        why = str(
            _read_build_record().get("failed")
            or "the compiled module is missing; pip install hookline again where a C++17 compiler is"
        )
    except ImportError as err:
        why = f"the compiled module does not load ({err}); pip install hookline again on this machine"
    if module is not None and getattr(module, "INTERFACE", None) != INTERFACE:
        module, why = None, "the compiled module is older than these sources; pip install hookline again"
    if module is None and setting == "require":
        raise RuntimeError(f"HOOKLINE_KERNELS=require, but {why}")
    return module, why


module, why_reference = _load()
_backend = "auto"


def use_native(device: torch.device) -> bool:
    """Whether a compiled kernel shall answer for tensors on this device."""
    return module is not None and _backend != "reference" and device.type == "cpu"


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Choose who answers inside a `with` block, for the whole process.

    `"auto"`: compiled kernels where they exist, else the reference. `"cpu"`, `"cuda"`: as `auto`, but refuse to start
    where that device has no compiled kernels. `"reference"`: plain torch, the same answers up to rounding.

    Raises ValueError for an unknown name, RuntimeError where the compiled kernels asked for are not there.
    """
    global _backend
    if name not in _BACKENDS:
        raise ValueError(f"backend {name!r} does not exist; choose from {', '.join(_BACKENDS)}")
    if name == "cuda":
        raise RuntimeError("backend 'cuda': no CUDA kernels are built in; tensors on a GPU use the reference")
    if name == "cpu" and module is None:
        raise RuntimeError(f"backend 'cpu': {why_reference}")
    before, _backend = _backend, name
    try:
        yield
    finally:
        _backend = before


def build_info() -> dict[str, Any]:
    """What runs, and why. JSON-ready, for the first line of a run and for `hookline doctor`.

    - `kernels`: `"native (cpu avx512)"` or `"reference"`;
    - `why`: the sentence that explains a reference, else `""`;
    - `instruction_set`, `instruction_sets`: the one in use; those compiled in (None, [] without native code);
    - `threads`: how many a kernel uses now (torch's setting); `openmp`: whether the build has it;
    - `compiler`, `platform`: of the build, of this machine; `cuda`: whether CUDA kernels are built in.
    """
    info: dict[str, Any] = {
        "kernels": "reference",
        "why": why_reference,
        "instruction_set": None,
        "instruction_sets": [],
        "openmp": False,
        "compiler": None,
        "cuda": False,
        "platform": f"{sys.platform} {os.uname().machine}" if hasattr(os, "uname") else sys.platform,
        "threads": torch.get_num_threads(),
    }
    if module is not None:
        info |= module.build_info()
        info["kernels"] = f"native (cpu {info['instruction_set']})"
    return info
