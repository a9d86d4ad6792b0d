"""Answers that depend on a clock or a service, written down before they are used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hookline.storage.lines import append, whole_lines

__all__ = ["Journal"]


class Journal:
    """Answers that depend on a clock or a service, on disk before anybody uses them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Any] = {}
        if path.exists():
            for line in whole_lines(path, ("key", "value")):
                self._known[json.dumps(line["key"])] = line["value"]

    def find(self, key: Sequence[Any]) -> tuple[bool, Any]:
        text = json.dumps(list(key))
        return text in self._known, self._known.get(text)

    def add(self, key: Sequence[Any], value: Any) -> None:
        append(self.path, {"key": list(key), "value": value}, sync=True)
        self._known[json.dumps(list(key))] = value
