"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

__all__ = ["expanded"]

P = TypeVar("P", str, Path)


def expanded(path: P) -> P:
    """The path with the home folder in place of a `~` at its beginning, or after the format of a data name.

    A shell does this for a word that begins with `~`, but not within `key=~/rows.jsonl`, and a file or Python never does.
    """
    form, colon, rest = str(path).rpartition(":")
    if form and rest.startswith("~") and not form.startswith("~"):
        return type(path)(f"{form}{colon}{os.path.expanduser(rest)}")
    return type(path)(os.path.expanduser(path))
