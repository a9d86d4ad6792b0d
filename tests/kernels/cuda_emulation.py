"""csrc/cuda compiled for the CPU: the module `_cuda` with every block and thread of its kernels run as coroutines.

The sources are those that nvcc compiles; only `cuda_runtime.h` is another one (see `cuda_emulator/`). So what runs here
on tensors of the CPU are the kernels, the bindings and `hookline.kernels.cuda` as a GPU would run them, but for the
hardware's own roundings, memory model and speed.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import machinery, util
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "csrc" / "cuda"
EMULATOR = Path(__file__).parent / "cuda_emulator"
FLAGS = (
    "-std=c++17 -O1 -fPIC -fvisibility=hidden -fno-strict-aliasing -ffp-contract=fast "
    "-fsanitize=alignment,bounds,shift,signed-integer-overflow -fsanitize-undefined-trap-on-error "
    "-Wall -Wextra -Wno-unknown-pragmas"
)


def build() -> ModuleType:
    """The emulated module, compiled once for each state of its sources."""
    compiler = shutil.which("g++") or pytest.skip("needs g++: apt-get install g++")
    files = sorted([*SOURCES.glob("*.*"), *EMULATOR.iterdir(), ROOT / "csrc" / "descriptors.h"])
    digest = hashlib.sha256(f"{FLAGS} {sys.version}".encode())
    for file in files:
        digest.update(file.read_bytes())
    folder = ROOT / "build" / "cuda-emulated" / digest.hexdigest()[:16]
    target = folder / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be at it
        if not target.exists():
            _compile(compiler, folder, target)
    loader = machinery.ExtensionFileLoader("_cuda", str(target))
    spec = util.spec_from_loader("_cuda", loader)
    assert spec
    module = util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _compile(compiler: str, folder: Path, target: Path) -> None:
    import pybind11

    includes = ["-I", str(EMULATOR)]
    for path in (pybind11.get_include(), sysconfig.get_paths()["include"]):
        includes += ["-isystem", path]
    units = [*SOURCES.glob("*.cu"), SOURCES / "bindings.cpp"]

    def compile(unit: Path) -> str:
        out = folder / f"{unit.stem}.o"
        subprocess.run([compiler, *FLAGS.split(), *includes, "-x", "c++", "-c", unit, "-o", out], check=True)
        return str(out)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile, units))
    aside = target.with_suffix(".new")
    subprocess.run([compiler, "-shared", *objects, "-o", aside], check=True)
    aside.replace(target)


def need_gpu() -> None:
    """Skip, with a plain reason, where the CUDA kernels cannot run."""
    from hookline.kernels import native

    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    if native.cuda_module is None:
        pytest.skip(native.why_no_cuda)


@contextmanager
def emulated() -> Iterator[None]:
    """Inside, `hookline.kernels.cuda` answers for tensors on the CPU, and so do the public functions."""
    from hookline.kernels import cuda, native, ops

    def product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        return torch.mm(a.float(), b.float(), out=out)  # as cuBLAS: narrow factors, wide sums

    patch = pytest.MonkeyPatch()
    patch.setattr(native, "cuda_module", build())
    patch.setattr(cuda, "place", lambda *tensors: (0, 0))
    patch.setattr(cuda, "capturing", lambda: False)
    patch.setattr(cuda, "product", product)
    patch.setattr(cuda, "_differs", {})
    patch.setattr(ops, "_who", lambda op, tensor: cuda)
    try:
        yield
    finally:
        patch.undo()
