"""What a run stands on: versions, hashes of code, and how two experiments differ."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from hookline.registry import offers

VERSIONS = ("hookline", "torch", "transformers", "tokenizers", "peft", "python")
FREE_TO_CHANGE = re.compile(r"^(trackers|plugins|device)\b|^phases\.\d+\.save\b")


def changed_plugins(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of components that a run now takes from other code than it began with; trackers change no result."""
    old = {(o["kind"], o["name"]): o for o in then}
    return sorted(o["name"] for o in now if o["kind"] != "tracker" and old.get((o["kind"], o["name"]), o) != o)


def version_of(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def sources_hash() -> str:
    """One hash over Hookline's own code, built-in plugins and native module included."""
    sha = hashlib.sha256()
    roots = [Path(__file__).parents[1]]
    spec = importlib.util.find_spec(offers.BUILT_IN)
    roots += [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or ()]
    for root in roots:
        for path in sorted([*root.rglob("*.py"), *root.glob("_native*.so")]):
            sha.update(path.relative_to(root).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()[:16]


def source_hash(cls: type) -> str:
    import inspect

    try:
        path = inspect.getsourcefile(cls)
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    except (TypeError, OSError):
        return ""


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new)):
            yield from differences(a, b, f"{path}.{i}")
    elif isinstance(old, list) and isinstance(new, list) and path == "phases":
        yield path, f"phases were {_names(old)}; are {_names(new)}"
    elif old != new:
        yield path, f"{path} was {_short(old)}, is {_short(new)}"


def _names(phases: Sequence[Any]) -> str:
    return ", ".join(str(phase.get("name") if isinstance(phase, dict) else phase) for phase in phases) or "none"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
