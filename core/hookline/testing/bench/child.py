"""Measurements in processes of their own, because a process's peak memory is that of everything it has done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hookline.errors import ExperimentError

__all__ = ["in_child", "peak_bytes", "write"]


def in_child(command: Sequence[str], what: str, hint: str) -> dict[str, Any]:
    """What a program writes as JSON into the file whose path it gets as its last argument.

    what: what it measures, for the error. Raises ExperimentError if it cannot be started or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "found.json"
        try:
            done = subprocess.run(
                [*command, str(written)], capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
            )
        except OSError as err:
            raise ExperimentError(f"{what} failed: {command[0]} cannot be started: {err.strerror}", hint) from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise ExperimentError(f"{what} failed: {lines[-1][:300]}", hint)
        found: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
        return found


def write(found: dict[str, Any], path: str) -> None:
    """Answer the process that called `in_child`."""
    Path(path).write_text(json.dumps(found), encoding="utf-8")


def peak_bytes(device: str = "cpu") -> int:
    """The most memory that this process had: resident, or on the GPU."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says begins with the peak of the parent process
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(fields["VmHWM"].split()[0]) << 10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
