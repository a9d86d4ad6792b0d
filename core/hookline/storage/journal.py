"""The journal of answers from clocks, services and people, which are written before they are used."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
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

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beside = path.with_suffix("")
        self._known: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in whole_lines(path, ("key", "value")):
                self._known.setdefault(json.dumps(line["key"]), line)

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
                with folders.write_aside(self._beside / line["tensors"], {}) as aside:
                    shutil.copy(other._beside / line["tensors"] / "answer.safetensors", aside)
        rewrite(self.path, list(other._known.values()), escaped=True)
        self._known = dict(other._known)

    def find(self, key: Sequence[Any]) -> tuple[bool, Any]:
        """(whether there is an answer, the answer). Raises CheckpointError if its tensors are missing or damaged."""
        line = self._known.get(json.dumps(list(key)))
        if line is None:
            return False, None
        tensors: dict[str, Tensor] = {}
        if "tensors" in line:
            folder = self._beside / line["tensors"]
            try:
                folders.verify(folder)
            except CheckpointError as err:
                raise CheckpointError(
                    f"{self.path} has a damaged answer: {err.message}", "restore the folder"
                ) from None
            tensors = trees.load_tensors(folder / "answer.safetensors")
        return True, trees.unflatten(line["value"], tensors)

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
                with folders.write_aside(self._beside / line["tensors"], {}) as aside:
                    trees.save_tensors(aside / "answer.safetensors", tensors)
            append(self.path, line, sync=True)
            self._known[text] = json.loads(json.dumps(line))
        return self.find(key)[1]
