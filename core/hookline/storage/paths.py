"""Paths as users write them."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TypeVar

from hookline.errors import ExperimentError

__all__ = [
    "MEMORY", "adapter_base", "beside", "expanded", "hold",
    "kept_or_beside", "look_in", "model_folder", "store_beside", "tokenizer_folder",
]

P = TypeVar("P", str, Path)
MEMORY = "@memory/"
"""How the path of a file begins that holds rows or code of this process."""
FOLDER = "HOOKLINE_MEMORY"
"""The variable of the environment with the folder of these files, which processes that this one starts inherit."""
_folders: list[str] = []
"""Folders of runs that have copies of such files."""


def hold(name: str, text: str) -> str:
    """Write a file that lasts as long as this process, and return the path under which `beside` finds it."""
    folder = os.environ.get(FOLDER, "")
    if not os.path.isdir(folder):
        folder = os.environ[FOLDER] = tempfile.mkdtemp(prefix="hookline-")
        atexit.register(_forget, folder, os.getpid())
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        with open(f"{path}.{os.getpid()}", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(file.name, path)
    return MEMORY + name


def _forget(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # not in a child that was forked
        shutil.rmtree(folder, ignore_errors=True)


def look_in(run: Path) -> None:
    """Find the rows and the code that a run keeps, also where another process has held them."""
    folders = [str(run / name) for name in ("memory", "functions", "plugins")]
    _folders[:] = [*folders, *(one for one in _folders if one not in folders)][:99]


def _held(path: str) -> str:
    """Where a held file is; the path itself if it is nowhere."""
    name = os.path.basename(path)
    places = (os.path.join(folder, name) for folder in (os.environ.get(FOLDER, ""), *_folders) if folder)
    return next((place for place in places if os.path.isfile(place)), path)


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
    if path.startswith(MEMORY):
        return _held(path)
    given = expanded(path)
    there = os.path.join(folder, given)
    if not folder or os.path.isabs(given) or (not os.path.exists(there) and os.path.exists(given)):
        return given
    return os.path.normpath(there)


def store_beside(url: str, folder: str = "") -> str:
    """The URL or file of a store; a relative path in it begins at the experiment's folder, as in `beside`."""
    head, sign, path = url.rpartition(":///") if "://" in url else ("", "", url)
    return head + sign + beside(path, folder) if path else url


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


def adapter_base(path: str) -> str | None:
    """The folder of the model that an adapter's adapter_config.json names as its base, beside the adapter or where the process
    is; None for a folder that is not an adapter's alone. Raises ExperimentError if the base is not here."""
    folder = Path(expanded(path))
    if (folder / "config.json").is_file() or not (folder / "adapter_config.json").is_file():
        return None
    try:
        about = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        named = str(about.get("base_model_name_or_path") or "")
    except (OSError, ValueError, AttributeError):
        return None  # it is read again, and named, where a model is loaded
    base = beside(named, str(folder)) if named else ""
    if not os.path.isdir(base):
        raise ExperimentError(
            f"{path} holds an adapter of the model {named}, which is not a folder here"
            if named
            else f"{path} holds an adapter and does not name its model",
            f"write model: {{path: FOLDER, merge: {path}}} with that model's folder, or name the folder in adapter_config.json",
        )
    return base


def tokenizer_folder(path: str) -> str:
    """Where the tokenizer of a model folder is: in it, or, for an adapter's folder without one, in that of its base."""
    base = adapter_base(path)
    return path if base is None or (Path(expanded(path)) / "tokenizer.json").is_file() else base
