"""What W&B's run table shows of a run: its experiment as columns under the paths of overrides, and the commit of the user's folder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hookline import Run, instance_name

__all__ = ["columns", "commit"]

SECONDS = 5.0
"""How long git may take."""


def columns(run: Run) -> dict[str, Any]:
    """One column per value of the resolved experiment, e.g. `phases.rl.update` = grpo and `phases.rl.update.lr` = 1e-6.

    The names are the paths that override the value on the command line, which a sweep's parameters use too. A component is
    its name, with its options below; an absent value has no column.
    """
    found = dict(_flat("", run.experiment))
    return {name: value for name, value in found.items() if value not in (None, {}, [], "")}


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and isinstance(value.get("use"), str):
        yield path, value["use"]
        rest = {key: item for key, item in value.items() if key not in ("use", "options", "name")}
        if rest.get("weight") == 1.0:  # as for every component that is not a reward
            del rest["weight"]
        for key, item in {**rest, **value.get("options", {})}.items():
            yield from _flat(f"{path}.{key}", item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), item)
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        for at, item in enumerate(value):
            yield from _flat(f"{path}.{_named(item, at)}", item)
    else:
        yield path, value


def _named(item: Mapping[str, Any], at: int) -> str:
    """How an override names an item of a list."""
    return instance_name(item) if isinstance(item.get("use"), str) else str(item.get("name") or at)


def commit(folder: str | Path) -> dict[str, Any]:
    """The commit of the repository that a folder belongs to, and whether files differ from it; empty without git."""
    try:
        found = [
            subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=SECONDS, check=True
            ).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git.commit": found[0].strip(), "git.dirty": bool(found[1].strip())}
