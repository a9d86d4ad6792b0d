"""The files and folders of a run: where they are, and which process writes them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hookline.errors import CheckpointError, a
from hookline.storage.folders import MANIFEST, verify, write_error
from hookline.storage.lines import append, rewrite, whole_lines
from hookline.world.world import World

__all__ = ["COLLECTED", "Directory", "about_of", "json_of", "planned"]

JOURNAL = "journal.jsonl"
COLLECTED = "data.jsonl"
"""In the folder of a finished phase: the judgements that it collected."""


class Directory:
    """The directory of a run. With several processes, that of rank 0 writes everything but the journals of the others."""

    def __init__(self, directory: Path, world: World) -> None:
        self.directory = directory  # The run's directory.
        self.world = world
        """The processes of the run."""

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a JSON file of the directory, completely or not at all."""
        if not self.world.leads:
            return
        aside = self.directory / f".{name}.aside"
        try:
            aside.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            aside.replace(self.directory / name)
        except OSError as err:
            raise write_error(self.directory / name, err) from err

    def journal_of(self, rank: int) -> Path:
        """The journal that a process writes."""
        return self.directory / (f"journal-{rank}.jsonl" if rank else JOURNAL)

    def journals(self, without: int | None = None) -> list[Path]:
        """The journals of all ranks, whatever the number of processes was; `without`: a rank whose journal is left out."""
        found = [self.journal_of(0), *sorted(self.directory.glob("journal-*.jsonl"))]
        return [path for path in found if without is None or path != self.journal_of(without)]

    @staticmethod
    def is_one(directory: str | Path) -> bool:
        """Whether a run has begun there. False for every name that cannot be one."""
        return os.path.isfile(Path(directory) / "run.json")  # unlike Path.is_file, also for a name that is too long

    @staticmethod
    def ended(directory: str | Path, phases: Mapping[str, int]) -> bool:
        """Whether these phases (name → steps) of the run in a directory have ended, by what the directory holds."""
        manifests = {name: Path(directory) / "phases" / name / MANIFEST for name in phases}
        return all(path.is_file() and planned(json_of(path)) >= phases[name] for name, path in manifests.items())

    # -- judgements of a phase that collects

    def collecting(self, phase: str) -> Path:
        """The file of the judgements that a phase has collected so far."""
        return self.directory / "collecting" / f"{phase}.jsonl"

    def collect(self, phase: str, entries: Sequence[Mapping[str, Any]]) -> None:
        """Append judgements to the file of a phase."""
        path = self.collecting(phase)
        if not self.world.leads:
            return
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as err:
            raise write_error(path, err) from err
        for entry in entries:
            append(path, entry)

    def answered(self, phases: Iterable[str]) -> bool:
        """Whether phases have collected an answer so far; skips and comments are none."""
        files = (file for name in phases for file in (self.phase_folder(name) / "data.jsonl", self.collecting(name)))
        lines = (line for file in files if file.exists() for line in whole_lines(file, ("answer",)))
        return any(line["answer"]["kind"] not in ("skip", "comment") for line in lines)

    def collections(self) -> list[Path]:
        """The files of judgements that phases have collected so far."""
        return sorted((self.directory / "collecting").glob("*.jsonl"))

    def cut_collected(self, phase: str, count: int) -> None:
        """Remove judgements after a checkpoint; the run will make them again."""
        path = self.collecting(phase)
        if not self.world.leads:
            return
        kept = list(whole_lines(path))[:count] if path.exists() else []
        if len(kept) < count:
            raise CheckpointError(
                f"{path} has {len(kept)} judgements, but the checkpoint was made after {count}", "restore the file"
            )
        if path.exists():
            rewrite(path, kept)

    # -- phases and checkpoints

    def phase_folder(self, phase: str) -> Path:
        """The folder with the model, data and hashes of a finished phase."""
        return self.directory / "phases" / phase

    def has_collected(self, phase: str) -> bool:
        """Whether a finished phase collected judgements; in a round, nobody may have answered."""
        return (self.phase_folder(phase) / COLLECTED).exists()

    def finished(self, phase: str, steps: int = 0) -> dict[str, Any] | None:
        """The verified manifest of a finished phase; None if the phase has not finished.

        steps: those that the phase should have; a phase that ended with fewer has not finished.
        """
        folder = self.phase_folder(phase)
        try:
            found = verify(folder) if folder.exists() else None
            return found if found is None or planned(found) >= steps else None
        except CheckpointError as err:
            err.hint = f"restore it; without it, phase '{phase}' and all later ones would have to be run again"
            raise

    def has_finished(self, phase: str, steps: int) -> bool:
        """Whether a phase has finished its steps, as rank 0 sees it."""
        return self.world.main(lambda: self.finished(phase, steps) is not None, "the phase's folder")

    def checkpoint_folder(self, phase: str, step: int) -> Path:
        """The folder of a phase's checkpoint after `step` steps."""
        return self.directory / "checkpoints" / f"{phase}-{step:08d}"

    def checkpoints(self, phase: str) -> list[Path]:
        """The folders of a phase's checkpoints, newest first by name; the step in the manifest is authoritative."""
        found = [
            p
            for p in (self.directory / "checkpoints").glob(f"{phase}-*")
            if re.fullmatch(r"\d{8}", p.name[len(phase) + 1 :])
        ]
        return sorted(found, key=lambda p: p.name, reverse=True)


def planned(manifest: Mapping[str, Any]) -> int:
    """The steps that a finished phase had been given."""
    return int(manifest.get("planned", manifest.get("steps", 0)))


def about_of(directory: Path) -> dict[str, Any]:
    """What run.json holds."""
    about = json_of(directory / "run.json")
    missing = [key for key in ("id", "data", "plugins") if key not in about]
    if missing:
        raise CheckpointError(
            f"{directory / 'run.json'} lacks '{missing[0]}'", "the run directory is damaged; restore the file"
        )
    return about


def json_of(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run. Raises CheckpointError if it cannot be read."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds {a(type(found).__name__)}, not an object")
        return found
    except (OSError, ValueError, RecursionError) as err:
        why = getattr(err, "strerror", None) or err
        raise CheckpointError(
            f"{path} cannot be read: {why}", "the run directory is damaged; restore the file"
        ) from None
