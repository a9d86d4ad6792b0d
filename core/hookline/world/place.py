"""Which of several processes this is, as a launcher's environment says: torchrun, accelerate, SLURM or `--processes`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from hookline.errors import ExperimentError

__all__ = ["Place"]

NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun and accelerate set for each process."""


@dataclass(frozen=True)
class Place:
    """Rank `rank` of `size` processes; `local` counts those of one machine. They meet at `host`:`port`."""

    rank: int = 0
    size: int = 1
    local: int = 0
    host: str = ""
    port: int = 0

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> Place:
        """The place of this process. Raises ExperimentError for variables that are incomplete or not numbers."""
        given = {name: environment[name] for name in NAMES if environment.get(name)}
        if "RANK" not in given and "WORLD_SIZE" not in given:
            given = _of_slurm(environment)
            if not given:
                return cls()
        if given.get("WORLD_SIZE") == "1" and given.get("RANK", "0") == "0":
            return cls()
        missing = [name for name in NAMES if name not in given]
        if missing:
            raise ExperimentError(
                f"the environment has {', '.join(name for name in NAMES if name in given)}, but not {', '.join(missing)}",
                "start all processes with torchrun, accelerate launch, srun or --processes, or unset these variables",
            )
        local = environment.get("LOCAL_RANK") or environment.get("SLURM_LOCALID") or "0"
        numbers = {"LOCAL_RANK": local, **{name: given[name] for name in NAMES if name != "MASTER_ADDR"}}
        for name, text in numbers.items():
            if not text.isdecimal():
                raise ExperimentError(f"{name} is {text!r} in the environment", "it is a whole number, from 0")
        rank, size = int(given["RANK"]), int(given["WORLD_SIZE"])
        if rank >= size:
            raise ExperimentError(
                f"RANK is {rank} and WORLD_SIZE is {size} in the environment", "ranks count from 0 to WORLD_SIZE - 1"
            )
        return cls(rank, size, int(local), given["MASTER_ADDR"], int(given["MASTER_PORT"]))

    def environment(self) -> dict[str, str]:
        """The variables with which `here` finds this place again."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_RANK": str(self.local),
            "MASTER_ADDR": self.host,
            "MASTER_PORT": str(self.port),
        }


def _of_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """The same variables for a process that `srun` started; empty outside a job step."""
    tasks, step = environment.get("SLURM_NTASKS", "1"), environment.get("SLURM_STEP_NODELIST", "")
    if tasks == "1" or not step or "SLURM_PROCID" not in environment:
        return {}
    port = 29_500 + int(environment.get("SLURM_JOB_ID", "0")) % 10_000  # the same for all, and another for each job
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": tasks,
        "MASTER_ADDR": environment.get("MASTER_ADDR") or _first_host(step),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(port),
    }


def _first_host(nodes: str) -> str:
    """The first host of a SLURM node list, such as `gpu[003-007,9],login1`."""
    found = re.match(r"([^\[,]+)(?:\[([^\],-]+))?", nodes)
    return found[1] + (found[2] or "") if found else nodes
