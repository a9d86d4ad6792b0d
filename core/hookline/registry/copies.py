"""The files of code that a run keeps: loose plugins, and the files of functions. Their copies are what reads the run later."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hookline.errors import CheckpointError
from hookline.registry.offers import Offer
from hookline.storage import paths
from hookline.storage.folders import file_hash, write_error

__all__ = ["FUNCTIONS", "MEMORY", "PLUGINS", "copy_code", "copy_rows", "refuse_other_functions"]

PLUGINS, FUNCTIONS, MEMORY = "plugins", "functions", "memory"
"""The folders of a run with copies of loose plugins, of the files of functions, and of rows that were given in Python."""


def copy_code(directory: Path, loose: Sequence[Offer], used: Sequence[Offer]) -> None:
    """Copy the files of loose plugins, and of the functions among the components in use, into a run's directory."""
    copied = {(o.path, PLUGINS) for o in loose if o.path} | {(o.path, FUNCTIONS) for o in used if o.function}
    for path, name in sorted(copied):
        folder = directory / name
        try:
            folder.mkdir(exist_ok=True)
            if Path(path).resolve().parent != folder.resolve():  # a function whose copy is all that is left
                shutil.copy(path, folder)
        except OSError as err:
            raise write_error(folder, err) from err


def copy_rows(directory: Path, resolved: Mapping[str, Any]) -> None:
    """Copy the rows that an experiment was given in Python into a run's directory."""
    for name in sorted(set(re.findall(rf"{paths.MEMORY}([\w.-]+\.jsonl)", json.dumps(resolved)))):
        file, folder = Path(paths.beside(paths.MEMORY + name)), directory / MEMORY
        try:
            folder.mkdir(exist_ok=True)
            if file.is_file() and file.resolve().parent != folder.resolve():
                shutil.copy(file, folder)
        except OSError as err:
            raise write_error(folder, err) from err


def refuse_other_functions(directory: Path, used: Sequence[Offer]) -> None:
    """Raise CheckpointError if the file of a function is not the one that the run in a directory began with."""
    for offer in used:
        copy = directory / FUNCTIONS / offer.distribution
        if offer.function and copy.is_file() and file_hash(copy) != file_hash(Path(offer.path)):
            raise CheckpointError(
                f"{offer.path} has changed since the run in {directory} began",
                f"restore it from {copy}, or start a new run with --out; model: {{path: {directory}}} begins there with this "
                "run's weights",
            )
