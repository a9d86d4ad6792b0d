"""`make cuda-check`: what it passes, what it stops, and what it says where nvcc is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hookline.kernels import build_info, cuda

ROOT = Path(__file__).resolve().parents[2]
CHECK = Path(__file__).with_name("cuda_check.py")
GOOD = "__global__ void add(float* x) { x[threadIdx.x] += 1; }\n"
SPILLS = """
__global__ void __launch_bounds__(1024, 2) spill(float* x) {
  float v[64];
#pragma unroll
  for (int i = 0; i < 64; i++) v[i] = x[i * 1024 + threadIdx.x];
#pragma unroll
  for (int k = 0; k < 4; k++)
#pragma unroll
    for (int i = 0; i < 64; i++) v[i] = v[(i * 7 + 3 * k) % 64] * v[i] + v[63 - i];
#pragma unroll
  for (int i = 0; i < 64; i++) x[i * 1024 + threadIdx.x] = v[i];
}
"""
UNUSED = "__global__ void add(float* x) { int forgotten = 3; x[0] = 1; }\n"


@pytest.fixture
def check(tmp_path):
    """`check(source)`: its exit status and what it prints."""

    def run(source, **environment):
        (tmp_path / "kernel.cu").write_text(source)
        done = subprocess.run(
            [sys.executable, CHECK, tmp_path / "kernel.cu"],
            env={**os.environ, "HOOKLINE_CUDA_CHECKED": str(tmp_path / "passed"), **environment},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def nvcc():
    if not (shutil.which("nvcc") or Path("/usr/local/cuda/bin/nvcc").exists()):
        pytest.skip("needs nvcc")


def test_a_clean_kernel_passes_and_is_remembered(check, nvcc):
    status, said = check(GOOD)
    assert status == 0
    assert "kernel.cu sm_80: 1 kernels" in said
    assert "kernel.cu sm_90: 1 kernels" in said
    assert "none was run" in said
    status, said = check(GOOD)
    assert status == 0
    assert "2 unchanged" in said
    assert "2 unchanged" not in check(GOOD.replace("1", "2"))[1]


@pytest.mark.parametrize(("source", "complaint"), [(SPILLS, "spills registers"), (UNUSED, "without a warning")])
def test_a_spill_or_a_warning_stops_it_every_time(check, nvcc, source, complaint):
    for _ in range(2):
        status, said = check(source)
        assert status == 1
        assert f"kernel.cu sm_90 {complaint}" in said or f"kernel.cu sm_90 does not compile {complaint}" in said
        assert "are fine" not in said


def test_without_nvcc_it_says_so_and_passes(check):
    status, said = check(SPILLS, CUDA_HOME="/nowhere")
    assert status == 0
    assert said == "cuda-check: nvcc is not here; skipped\n"


def test_no_torch_header_is_included():
    for path in (ROOT / "csrc" / "cuda").glob("*.*"):
        if path.suffix != ".py":
            included = [line for line in path.read_text().splitlines() if line.startswith("#include")]
            assert not [line for line in included if "torch" in line or "ATen" in line or "c10" in line], path.name


def test_tensors_on_two_devices_are_refused_before_any_kernel():
    with pytest.raises(ValueError, match="tensors are on cpu and meta; move them to one device"):
        cuda.place(torch.zeros(1), None, torch.zeros(1, device="meta"))


def test_build_info_says_whether_cuda_kernels_are_here():
    info = build_info()
    assert info["cuda"] == (info["cuda_why"] == "")
    assert info["cuda_distrusted"] == {}


def test_doctor_says_that_they_never_ran_here():
    from hookline.cli.doctor import examine

    (finding,) = [item for item in examine() if item["what"] == "CUDA kernels"]
    assert finding["state"] == "note"
    assert "never run on this project's machines" in finding["found"]


@pytest.fixture
def copy(tmp_path):
    """What a build reads, and nothing that is built."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("core", "plugins", "csrc"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
        )
    return tmp_path


def install(copy, **environment):
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=copy,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def info_of(copy):
    code = "import json; from hookline.kernels import build_info; print(json.dumps(build_info()))"
    environment = {**os.environ, "PYTHONPATH": str(copy / "core")}
    return json.loads(
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    )


def test_cuda_kernels_that_are_asked_for_and_cannot_be_built_are_an_error(copy):
    done = install(copy, HOOKLINE_CUDA="1", CUDA_HOME="/nowhere", CXX="no-such-compiler")
    assert done.returncode
    assert "HOOKLINE_CUDA=1, but nvcc was not found; install the CUDA toolkit" in done.stderr


def test_cuda_kernels_that_are_not_wanted_are_not_built_and_it_is_known(copy):
    done = install(copy, HOOKLINE_CUDA="0", CXX="no-such-compiler")
    assert done.returncode == 0, done.stderr
    info = info_of(copy)
    assert not info["cuda"]
    assert info["cuda_why"] == "no CUDA kernels are built in (HOOKLINE_CUDA=0 left the CUDA kernels out)"


@pytest.mark.slow(50)
def test_cuda_kernels_build_and_load_without_a_gpu(copy, nvcc):
    done = install(copy, HOOKLINE_CUDA="1")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    info = info_of(copy)
    assert info["cuda"]
    assert info["kernels"].startswith("native (cpu ")  # and the other module is not disturbed
    assert info["cuda_runtime"] >= 11000
