"""More steps than a run began with: which phases may get them, and what that changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hookline.errors import CheckpointError
from hookline.runs.directory import Directory
from hookline.runs.ledger import Ledger
from hookline.storage.folders import verify

__all__ = ["lengthened", "notice_of", "step_changes", "undone"]

Json = Mapping[str, Any]
Change = dict[str, Any]
"""{"phase", "from", "to", "done"}: the steps that a phase had, those that it has now, and those that it had taken."""


def step_changes(old: Json, new: Json) -> dict[str, tuple[int, int]]:
    """Phase → (steps, steps now), for the phases of two experiments with the same phases."""
    before = {phase["name"]: phase["steps"] for phase in old["phases"]}
    after = {phase["name"]: phase["steps"] for phase in new["phases"]}
    both = before.keys() & after.keys() if list(before) == list(after) else ()
    return {name: (before[name], after[name]) for name in after if name in both and before[name] != after[name]}


def lengthened(run: Directory, ledger: Ledger, changes: Mapping[str, tuple[int, int]], names: Sequence[str]) -> list[Change]:
    """The changes of phases that have begun, checked. names: the run's phases in order.

    Raises CheckpointError for a phase that has already taken more steps, or whose end can no longer be continued.
    """
    taken: dict[str, int] = {}
    for row in ledger.on_disk():
        taken[row["phase"]] = int(row["step"])
    found = []
    for name, (before, after) in changes.items():
        done = taken.get(name, 0)
        ended = run.finished(name, before)
        if after < done or (after == done and ended is None and done):
            raise CheckpointError(
                f"phase '{name}' of {run.directory} has taken {done} steps, so it cannot have {after}",
                f"give more than {done}, or start a new run with --out",
            )
        if ended is not None:
            _can_go_on(run, name, after, [n for n in names[names.index(name) + 1 :] if n in taken or run.checkpoints(n)])
        if done:
            found.append({"phase": name, "from": before, "to": after, "done": done})
    return found


def _can_go_on(run: Directory, name: str, steps: int, later: Sequence[str]) -> None:
    """Raises CheckpointError unless the end of a phase can be continued."""
    if later:
        raise CheckpointError(
            f"phase '{name}' cannot have {steps} steps, because phase '{later[0]}' has begun from its end",
            "undo the change, or start a new run with --out",
        )
    kept = run.checkpoints(name)
    if not kept:
        raise CheckpointError(
            f"phase '{name}' has ended, and the state of its optimiser was not kept, so it cannot have {steps} steps",
            "it is kept for the last phase, unless save: {end: false}; start a new run with --out",
        )
    verify(kept[0])


def notice_of(change: Change) -> str:
    """What a change of steps means."""
    return (
        f"phase '{change['phase']}' now has {change['to']} steps instead of {change['from']}, of which {change['done']} are done; "
        f"schedules follow {change['to']} steps from here on, so unless the learning rate is constant, the rows are not those of a "
        f"run with {change['to']} steps from the beginning"
    )


def undone(about: dict[str, Any], written: str) -> bool:
    """Take back what was noted in run.json before a kill kept experiment.json from being written; whether there was any.

    written: the hash of experiment.json.
    """
    noted = about.get("lengthened", [])
    if about.get("experiment_sha256") == written or not any(change["experiment_sha256"] == written for change in noted):
        return False
    about["experiment_sha256"] = written
    about["lengthened"] = [change for change in noted if change["experiment_sha256"] != written]
    return True
