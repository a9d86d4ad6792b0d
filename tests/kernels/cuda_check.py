"""Compiles every CUDA kernel for every architecture, without a GPU. A warning or a spilled register is a failure.

    python tests/kernels/cuda_check.py [SOURCE.cu ...]

What has passed is remembered under build/cuda-check by a hash of the sources, the flags and the compiler, so an
unchanged tree is checked in no time. Where nvcc is missing it says so and succeeds.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parents[2] / "csrc" / "cuda"
PASSED = Path(os.environ.get("HOOKLINE_CUDA_CHECKED", HERE.parents[1] / "build" / "cuda-check"))
ARCHITECTURES = ("sm_80", "sm_90")
FLAGS = "-std=c++17 -O3 -cubin -Werror all-warnings -Xcompiler -Wall,-Wextra,-Werror -Xptxas -v,-warn-spills,-Werror"
SPILL = re.compile(r"([1-9]\d*) bytes spill")
REGISTERS = re.compile(r"Used (\d+) registers")


def find_nvcc() -> str | None:
    """In CUDA_HOME where that is set, else on the path or where toolkits usually lie."""
    if home := os.environ.get("CUDA_HOME"):
        return shutil.which("nvcc", path=f"{home}/bin")
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def compile(nvcc: str, source: Path, architecture: str) -> tuple[str, str]:
    """("", a line that says how it went), or (the complaint, "")."""
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, *FLAGS.split(), "-I", str(HERE), "-arch", architecture, "-o", f"{folder}/out", str(source)]
        run = subprocess.run(command, capture_output=True, text=True)
    said = run.stdout + run.stderr
    name = f"{source.name} {architecture}"
    if SPILL.search(said):
        lines = said.splitlines()
        where = [f"{lines[i - 1].strip()}\n{line.strip()}" for i, line in enumerate(lines) if SPILL.search(line)]
        return f"{name} spills registers:\n" + "\n".join(where), ""
    if run.returncode or "warning" in said.lower():
        return f"{name} does not compile without a warning:\n{said.strip()}", ""
    used = [int(n) for n in REGISTERS.findall(said)]
    return "", f"{name}: {len(used)} kernels, at most {max(used, default=0)} registers, no spill"


def main(arguments: list[str]) -> int:
    nvcc = find_nvcc()
    if nvcc is None:
        print("cuda-check: nvcc is not here; skipped")
        return 0
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    sources = [Path(a).resolve() for a in arguments] or sorted(HERE.glob("*.cu"))
    shared = "".join(path.read_text() for path in sorted([*HERE.glob("*.h"), *HERE.glob("*.cuh")]))
    tasks = []
    for source in sources:
        for architecture in ARCHITECTURES:
            known = "\0".join((version, FLAGS, architecture, source.name, shared, source.read_text()))
            tasks.append((source, architecture, PASSED / hashlib.sha256(known.encode()).hexdigest()))
    open_tasks = [task for task in tasks if not task[2].exists()]
    PASSED.mkdir(parents=True, exist_ok=True)
    failed = False
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for task, (complaint, line) in zip(open_tasks, pool.map(lambda task: compile(nvcc, *task[:2]), open_tasks)):
            failed |= bool(complaint)
            print(f"cuda-check: {complaint or line}", flush=True)
            if not complaint:
                task[2].write_text(line + "\n")
    if not failed:
        done = f"{len(tasks) - len(open_tasks)} unchanged" if len(open_tasks) < len(tasks) else "all of them compiled"
        print(f"cuda-check: {len(sources)} sources for {', '.join(ARCHITECTURES)} are fine ({done}); none was run")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
