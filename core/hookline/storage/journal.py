"""The journal of answers from clocks, services and people, which are written before they are used."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from hookline.errors import CheckpointError
from hookline.storage import folders, trees
from hookline.storage.lines import append, rewrite, whole_lines

__all__ = ["Journal"]


class Journal:
    """One line per answer, `{"key", "value"}`; the first answer to a key is valid. Tensors are in a folder of the same
    name."""

    def __init__(self, path: Path, others: Iterable[Path] = ()) -> None:
        """others: the journals of the run's other processes, which are only read."""
        self.path = path
        self._known: dict[str, dict[str, Any]] = {}
        self._beside: dict[str, Path] = {}
        """By key, the folder of the answer's tensors."""
        for file in (path, *others):
            for line in whole_lines(file, ("key", "value")) if file.exists() else ():
                key = json.dumps(line["key"])
                self._known.setdefault(key, line)
                self._beside.setdefault(key, file.with_suffix("") / line.get("tensors", ""))

    def __len__(self) -> int:
        return len(self._known)

    def take_over(self, other: Journal) -> None:
        """Copy all answers of another run's journal, so that these are not asked for again.

        Does nothing if this journal already has answers. Raises CheckpointError if an answer of the other journal is
        damaged.
        """
        if self._known or not other._known:
            return
        for key, line in other._known.items():
            other.find(json.loads(key))
            if "tensors" in line:
                self._beside[key] = self.path.with_suffix("") / line["tensors"]
                with folders.write_aside(self._beside[key], {}) as aside:
                    shutil.copy(other._beside[key] / "answer.safetensors", aside)
        rewrite(self.path, list(other._known.values()), escaped=True)
        self._known = dict(other._known)

    def find(self, key: Sequence[Any]) -> tuple[bool, Any]:
        """(whether there is an answer, the answer). Raises CheckpointError if its tensors are missing or damaged."""
        text = json.dumps(list(key))
        line = self._known.get(text)
        if line is None:
            return False, None
        tensors: dict[str, Tensor] = {}
        if "tensors" in line:
            folder = self._beside[text]
            try:
                folders.verify(folder)
            except CheckpointError as err:
                raise CheckpointError(
                    f"{self.path} has a damaged answer: {err.message}", "restore the folder"
                ) from None
            tensors = trees.load_tensors(folder / "answer.safetensors")
        return True, trees.unflatten(line["value"], tensors)

    def attempt(self, phase: str) -> int:
        """How often a phase has ended unanswered: what it asks then is asked anew, and kept beside what was said before."""
        return next(n for n in count() if json.dumps(["unanswered", phase, n]) not in self._known)

    def unanswered(self, phase: str) -> None:
        """Note that a phase has ended unanswered."""
        self.add(["unanswered", phase, self.attempt(phase)], True)

    def add(self, key: Sequence[Any], value: Any) -> Any:
        """Write an answer, tensors first, and return it as a later `find` does. A second answer to the same key is
        dropped.

        Raises trees.Unsavable for an answer that is not JSON or a tree of tensors.
        """
        text = json.dumps(list(key))
        if text not in self._known:
            tensors: dict[str, Tensor] = {}
            line: dict[str, Any] = {"key": list(key), "value": trees.flatten(value, tensors)}
            if tensors:
                line["tensors"] = hashlib.sha256(text.encode()).hexdigest()[:32]
                self._beside[text] = self.path.with_suffix("") / line["tensors"]
                with folders.write_aside(self._beside[text], {}) as aside:
                    trees.save_tensors(aside / "answer.safetensors", tensors)
            append(self.path, line, sync=True)
            self._known[text] = json.loads(json.dumps(line))
        return self.find(key)[1]
