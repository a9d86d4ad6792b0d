"""Replies that are known: a file of JSON lines, which several components, processes and runs may share.

Each question that was asked adds a line: {"key", "reply" or "failed", "requests", "tokens", "judge", "by"}. A line is written under a
lock, and synced, before its reply is used. What a judge of a run has spent is the sum over its lines in the run's own file, whichever
process asked.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hookline import CheckpointError


class Known:
    """The lines of one file. Other processes may add lines at any time."""

    def __init__(self, path: Path, writes: bool = True) -> None:
        """writes: False for the file of a run that is only read; lines are then kept in memory."""
        self.path, self.writes = path, writes
        self.spent: Counter[tuple[str, str]] = Counter()
        """(the instance that asked, `requests` or `tokens`) → their sum."""
        self._read = 0
        self._places: dict[str, int] = {}
        self._lines: dict[str, dict[str, Any]] = {}

    def find(self, key: str) -> dict[str, Any] | None:
        """The line with a reply to a question; None if there is none."""
        self.refresh()
        if key in self._lines or key not in self._places:
            return self._lines.get(key)
        with self.path.open("rb") as file:
            file.seek(self._places[key])
            line: dict[str, Any] = json.loads(file.readline())
        return line

    def add(self, line: Mapping[str, Any]) -> None:
        """Write a line. Raises CheckpointError if the file cannot be written."""
        if not self.writes:
            self._take(dict(line), None)
            return
        raw = json.dumps(line).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                end = file.seek(0, os.SEEK_END)
                if end:
                    file.seek(end - 1)
                    raw = raw if file.read(1) == b"\n" else b"\n" + raw  # a kill cut the last line off
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
        except OSError as err:
            raise CheckpointError(f"{self.path} cannot be written: {err.strerror}", "check the folder and the disk") from None
        self.refresh()

    def refresh(self) -> None:
        """Read what was added since. A line that is not JSON is left out: its question is asked again."""
        try:
            if self.path.stat().st_size <= self._read:
                return
            with self.path.open("rb") as file:
                file.seek(self._read)
                for raw in file:
                    if not raw.endswith(b"\n"):
                        return
                    at, self._read = self._read, self._read + len(raw)
                    try:
                        line = json.loads(raw)
                    except ValueError:
                        continue
                    if isinstance(line, dict):
                        self._take(line, at)
        except FileNotFoundError:
            return
        except OSError as err:
            raise CheckpointError(f"{self.path} cannot be read: {err.strerror}", "check the folder and the disk") from None

    def _take(self, line: dict[str, Any], at: int | None) -> None:
        key, asker = str(line.get("key")), str(line.get("judge"))
        for name in ("requests", "tokens"):
            if isinstance(line.get(name), int):
                self.spent[asker, name] += line[name]
        if isinstance(line.get("reply"), str) and key not in self._places and key not in self._lines:
            if at is None:
                self._lines[key] = line
            else:
                self._places[key] = at
