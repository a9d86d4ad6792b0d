"""Paths as users write them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

__all__ = ["beside", "expanded", "kept_or_beside", "model_folder"]

P = TypeVar("P", str, Path)


def expanded(path: P) -> P:
    """The path with the home folder in place of a `~` at its beginning, or after the format of a data name.

    A shell does this for a word that begins with `~`, but not within `key=~/rows.jsonl`, and a file or Python never does.
    """
    form, colon, rest = str(path).rpartition(":")
    if form and rest.startswith("~") and not form.startswith("~"):
        return type(path)(f"{form}{colon}{os.path.expanduser(rest)}")
    return type(path)(os.path.expanduser(path))


def beside(path: str, folder: str = "") -> str:
    """A path of an experiment: relative to the experiment's folder, or, if nothing is there, to where the process is."""
    given = expanded(path)
    there = os.path.join(folder, given)
    if not folder or os.path.isabs(given) or (not os.path.exists(there) and os.path.exists(given)):
        return given
    return os.path.normpath(there)


def kept_or_beside(path: str, folder: str, kept: str, ended: bool) -> str:
    """A file of code: what `beside` finds, or a run's own copy in the folder `kept` if nothing is there, or if the run is
    only read (`ended`)."""
    own, copy = beside(path, folder), os.path.join(kept, os.path.basename(path))
    return copy if kept and os.path.isfile(copy) and (ended or not os.path.isfile(own)) else own


def model_folder(path: str) -> str:
    """The folder of a model's files: the path itself, or, for a run or a phase of one, that of its last or that phase."""
    folder = Path(expanded(path))
    try:
        if (folder / "run.json").is_file():
            ended = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("ended") or ()
            found = [name for name in ended if (folder / "phases" / name / "model" / "config.json").is_file()]
            return str(folder / "phases" / found[-1] / "model") if found else str(folder)
        if (folder / "manifest.json").is_file() and (folder / "model" / "config.json").is_file():
            return str(folder / "model")
    except (OSError, ValueError, AttributeError):
        pass  # it is read again, and named, where a model is loaded
    return str(folder)
