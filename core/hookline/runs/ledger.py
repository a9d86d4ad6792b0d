"""The rows, evaluations and completions of a run on disk: appended as they come, hashed for every save, cut back by a resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hookline.errors import CheckpointError
from hookline.storage.lines import append, digest, figures, finite, rewrite, whole_lines

__all__ = ["COMPLETIONS", "EVALUATIONS", "ROWS", "Ledger"]

ROWS, EVALUATIONS, COMPLETIONS = FILES = "metrics.jsonl", "evaluations.jsonl", "completions.jsonl"


class Ledger:
    """The three files of a run. `rows` holds what was committed; only `cut_back` removes anything."""

    def __init__(self, directory: Path, writes: bool = True) -> None:
        """writes: whether this process writes the files; otherwise it keeps the rows in memory alone."""
        self.directory, self.writes = directory, writes
        self.rows: list[dict[str, Any]] = []
        """Every committed row, oldest first, as far as this process has read or written them."""
        self._hashes = {name: digest(()) for name in FILES}
        self._beside: int | None = None
        """The number of rows up to which evaluations and completions may belong; None until this process has read the files."""

    @property
    def paths(self) -> list[Path]:
        """The three files."""
        return [self.directory / name for name in FILES]

    def read(self) -> None:
        """Read the rows, in which `null` was a figure that is not finite."""
        path = self.directory / ROWS
        self.rows = list(figures(path)) if path.exists() else []

    def evaluations(self) -> list[dict[str, Any]]:
        path = self.directory / EVALUATIONS
        return list(figures(path)) if path.exists() else []

    def on_disk(self) -> Iterator[dict[str, Any]]:
        """The rows of the file, those after the newest save included."""
        path = self.directory / ROWS
        return whole_lines(path, ("row", "phase")) if path.exists() else iter(())

    def add_row(self, row: dict[str, Any]) -> None:
        self._append(ROWS, row)
        self.rows.append(row)

    def add_evaluation(self, entry: Mapping[str, Any]) -> None:
        self._add_beside(EVALUATIONS, entry)

    def completions(self) -> list[dict[str, Any]]:
        path = self.directory / COMPLETIONS
        return list(whole_lines(path)) if path.exists() else []

    def add_completion(self, entry: Mapping[str, Any]) -> None:
        self._add_beside(COMPLETIONS, entry)

    def _add_beside(self, name: str, entry: Mapping[str, Any]) -> None:
        if self._beside is not None:
            self._beside = len(self.rows) + 1
        self._append(name, entry)

    def _append(self, name: str, entry: Mapping[str, Any]) -> None:
        if self.writes:
            self._hashes[name].update(append(self.directory / name, finite(entry)))

    def written(self) -> dict[str, str]:
        """The hash of each file as this run wrote it, for the manifest of a save."""
        return {name: sha.hexdigest() for name, sha in self._hashes.items()}

    def cut_back(self, rows: int, written: Mapping[str, str] | None = None) -> None:
        """Remove what came after the first `rows` rows; the run will make it again, bit for bit.

        written: the hashes in the manifest of the save. Raises CheckpointError, before any file changes, if what the run
        wrote before the save is no longer there, or is different.
        """
        if self._beside is not None and self._beside <= rows == len(self.rows):
            return  # this process has already read or written the files
        kept, hashes = {}, {}
        for path in self.paths:
            found = whole_lines(path, ("row",)) if path.exists() else iter(())
            kept[path] = [line for line in found if line["row"] < rows]
            hashes[path.name] = digest(kept[path])
        path = self.directory / ROWS
        if len(kept[path]) < rows:
            raise CheckpointError(
                f"{path} has {len(kept[path])} rows, but the checkpoint was made after {rows}", "restore the file"
            )
        for name, sha in (written or {}).items():
            if hashes[name].hexdigest() != sha:
                raise CheckpointError(
                    f"{self.directory / name} is not as this run wrote it: lines before the newest save have changed",
                    "restore the file, or start a new run with --out",
                )
        for path, lines in kept.items():
            if path.name == ROWS or path.exists():
                rewrite(path, lines)
        self.read()
        self._beside, self._hashes = 0, hashes
