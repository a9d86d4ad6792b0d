"""What a run depends on: versions, hashes of code, and the differences between two experiments."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from hookline import kernels
from hookline._version import __version__
from hookline.config.problems import label_of
from hookline.config.uses import normal_form
from hookline.errors import ExperimentError, shorten
from hookline.registry import offers
from hookline.registry.offers import Offer
from hookline.world import devices
from hookline.world.world import World

__all__ = ["Surroundings", "experiment_changes", "experiment_hash"]

VERSIONS = ("hookline", "torch", "transformers", "tokenizers", "peft", "python")
MACHINE = ("machine", "processor", "arithmetic", "device", "processes", "threads", "kernels")
FREE_TO_CHANGE = re.compile(
    r"^(trackers|plugins|device|folder)\b|^phases\.\d+\.(save|completions|epochs)\b|^phases\..*\.options\.budget\b"
)
"""What a run may go on with changed. A component's `budget` says when asking ends, and changes no answer; `epochs` are
counted in `steps`, which may be raised."""


@dataclass(frozen=True)
class Surroundings:
    """Everything outside the experiment that can change a result, as stored in run.json."""

    values: Mapping[str, Any]

    @classmethod
    def now(cls, used: Sequence[Offer], threads: int | None, device: str, world: World | None = None) -> Surroundings:
        """The surroundings of this process. used: the components that the experiment names; threads: the threads that
        the experiment sets, default those of torch; device: the device that the experiment sets, e.g. `auto`."""
        world = world or World()
        where = devices.resolve(device, world.local)
        plugins = [
            {
                "kind": o.kind,
                "name": o.name,
                "distribution": o.distribution,
                "version": o.version,
                "sha256": _source_hash(o),
            }
            for o in used
        ]
        return cls(
            {
                "hookline": __version__,
                "torch": str(torch.__version__),
                "python": platform.python_version(),
                "machine": platform.machine(),
                "processor": _processor(where),
                "arithmetic": _arithmetic(),
                "device": str(where),
                "processes": world.size,
                **{name: _version_of(name) for name in ("transformers", "tokenizers", "peft")},
                "sources": _sources_hash(),
                "threads": threads or torch.get_num_threads(),
                "kernels": kernels.build_info()["kernels"],
                "plugins": plugins,
            }
        )

    def refuse_others(self, world: World, experiment: str) -> None:
        """Raises ExperimentError if the ranks have different versions, code or experiments. experiment: its hash."""
        mine = {"experiment": experiment, **{key: self.values[key] for key in (*VERSIONS, "sources")}}
        mine |= {f"{o['kind']} '{o['name']}'": (o["version"], o["sha256"]) for o in self.values["plugins"]}
        first, *others = world.gather(mine, "the start")
        for rank, other in enumerate(others, 1):
            for key in dict.fromkeys([*first, *other]):
                if first.get(key) != other.get(key):
                    shown = f": {first.get(key)} and {other.get(key)}" if key in VERSIONS else ""
                    err = ExperimentError(
                        f"rank 0 and rank {rank} differ in {key}{shown}",
                        "start every process with the same command, files and packages",
                    )
                    err.everywhere = True
                    raise err

    def differences(self, then: Mapping[str, Any]) -> dict[str, str]:
        """The differences since the run began: key → a short text. Trackers are ignored, because they change no
        result."""
        found = {
            key: f"{key}: {then.get(key)} then, {self.values[key]} now"
            for key in (*VERSIONS, *MACHINE, "sources")
            if key in then and then[key] != self.values[key]
        }
        old = {(o["kind"], o["name"]): o for o in then.get("plugins", [])}
        changed = {
            o["name"]
            for o in self.values["plugins"]
            if o["kind"] != "tracker" and old.get((o["kind"], o["name"]), o) != o
        }
        return found | {f"plugin {name}": f"plugin {name} has changed" for name in sorted(changed)}


def experiment_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """How an experiment differs from the one that a run began with, except for keys that may change during a run."""
    found = _differences(*(normal_form(_as_written(one, str(one.get("folder") or ""))) for one in (old, new)))
    return [text for key, text in found if not FREE_TO_CHANGE.match(key)]


def _as_written(value: Any, folder: str) -> Any:
    """An experiment whose paths begin at its folder again, wherever the process was."""
    if isinstance(value, Mapping):
        return {key: _as_written(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_written(item, folder) for item in value]
    return value.removeprefix(f"{folder}/") if folder and isinstance(value, str) else value


def experiment_hash(resolved: Mapping[str, Any]) -> str:
    """The hash of a resolved experiment."""
    return hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()


def _version_of(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def _processor(device: torch.device) -> str:
    """The name of the processor, and of the GPU if networks are on one."""
    try:
        name = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        name = None
    cpu = name[1].strip() if name else platform.processor() or platform.machine()
    return f"{cpu}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else cpu


def _arithmetic() -> str:
    """The library for matrix products on the CPU, and the instructions that torch uses: `mkl 2024.2, AVX2`."""
    built = torch.__config__.show()
    library = re.search(r"BLAS_INFO=(\w+)", built)
    version = re.search(r"Math Kernel Library Version ([\d.]+)", built)
    name = " ".join(found[1] for found in (library, version) if found)
    return f"{name or 'unknown'}, {torch.backends.cpu.get_cpu_capability()}"


def _sources_hash() -> str:
    """One hash over Hookline's own code, including built-in plugins and the native module."""
    sha = hashlib.sha256()
    roots = [Path(__file__).parents[1]]
    spec = importlib.util.find_spec(offers.BUILT_IN)
    roots += [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or ()]
    for root in roots:
        for path in sorted([*root.rglob("*.py"), *root.glob("_native*.so")]):
            sha.update(path.relative_to(root).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()[:16]


def _source_hash(offer: Offer) -> str:
    """The hash of a component's file. For a loose plugin, its own path is used, because a copy may share an imported
    module."""
    try:
        path = offer.path or inspect.getsourcefile(offer.load())
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    except (TypeError, OSError):
        return ""


def _differences(old: Any, new: Any, path: str = "", shown: str = "") -> Iterator[tuple[str, str]]:
    """(path, sentence) of each difference; the sentence refers to items of lists by their names."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            where = (f"{path}.{key}", f"{shown}.{key}") if path else (str(key), str(key))
            yield from _differences(old.get(key), new.get(key), *where)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new)):
            key = path.rpartition(".")[2]
            name = label_of(a, key) if label_of(a, key) == label_of(b, key) else ""
            yield from _differences(a, b, f"{path}.{i}", f"{shown}.{name or i}")
    elif isinstance(old, list) and isinstance(new, list) and path == "phases":
        yield path, f"phases were {_names(old)}; are {_names(new)}"
    elif old != new:
        yield path, f"{shown} was {shorten(json.dumps(old))}, is {shorten(json.dumps(new))}"


def _names(phases: Sequence[Any]) -> str:
    return ", ".join(str(phase.get("name") if isinstance(phase, dict) else phase) for phase in phases) or "none"
