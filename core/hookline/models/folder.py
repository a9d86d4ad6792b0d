"""Checks that a model folder is complete and safe to load, before any weight is read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from hookline.errors import ExperimentError
from hookline.registry.slot import Slot
from hookline.storage import folders
from hookline.storage.disguised import pointer

__all__ = ["check_files", "check_folder", "folder_hash", "parameters", "positions"]

LONGEST_HEADER = 100_000_000
"""Bytes; safetensors itself refuses longer headers."""


def check_folder(path: str) -> None:
    """Refuse a model folder that is incomplete or would run its own code. Reads its config, imports nothing."""
    folder = Path(path)
    hint = "give a local transformers folder; nothing is downloaded"
    try:
        if not folder.is_dir():
            raise ExperimentError(f"there is no model folder {path}", hint)
        if (folder / "adapter_config.json").is_file():  # transformers would put it on the weights, or on those of its base
            about = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            base = about.get("base_model_name_or_path") if isinstance(about, dict) else None
            raise ExperimentError(
                f"{path} holds an adapter{f' of the model {base}' if base else ''}, not a model of its own",
                "merge it with that model first (peft: merge_and_unload, save_pretrained) and name the merged folder",
            )
        if not (folder / "config.json").is_file():
            raise ExperimentError(f"the model folder {path} has no config.json", hint)
        check_files(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
            raise ValueError("it has no model_type")
        weights = [file.name for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".pt", ".pth")]
    except (OSError, ValueError, RecursionError) as err:
        raise ExperimentError(
            f"{folder / 'config.json'} cannot be read: {' '.join(str(err).split())}",
            "give a complete transformers folder",
        ) from None
    asked = _code_asked_for(config)
    if asked:
        raise ExperimentError(
            f"{path} asks to run its own code ({asked})",
            "Hookline never runs a model folder's code; convert it to a built-in transformers architecture",
        )
    if not any(name.endswith(".safetensors") for name in weights):
        has = f"only {weights[0]}, which would have to be unpickled" if weights else "no weights"
        raise ExperimentError(f"the model folder {path} holds {has}", "save it as safetensors: save_pretrained(DIR)")


def check_files(folder: Path) -> None:
    """Refuse a folder in which a file is only the pointer that git-lfs leaves in its place."""
    for wrong in filter(None, map(pointer, sorted(file for file in folder.iterdir() if file.is_file()))):
        raise ExperimentError(*wrong)


def positions(architecture: Slot | None, path: str | None) -> int | None:
    """The maximum number of positions of the experiment's model, if it is known before the model is built."""
    if architecture is not None:
        found = getattr(architecture.config, "context", None)
    else:
        try:
            config = json.loads((Path(path or "") / "config.json").read_text(encoding="utf-8"))
            found = config.get("max_position_embeddings") or config.get("n_positions")
        except (OSError, ValueError, AttributeError, RecursionError):
            return None  # check_folder has said what is wrong with it
    return found if isinstance(found, int) else None


def parameters(path: str) -> int | None:
    """The number of parameters in a folder's safetensors files, by their headers; None if they cannot be read."""
    count = 0
    try:
        for file in sorted(Path(path).glob("*.safetensors")):
            with file.open("rb") as stored:
                header = json.loads(stored.read(min(int.from_bytes(stored.read(8), "little"), LONGEST_HEADER)))
            count += sum(math.prod(about["shape"]) for name, about in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # check_folder and the loading of the weights say what is wrong with it
    return count or None


def folder_hash(path: str) -> str:
    """A hash of the weights and configs in a model folder. A process reads each file once, unless the file changes."""
    files = sorted(file for file in Path(path).absolute().glob("*") if file.suffix in (".safetensors", ".json"))
    return _hash_of(tuple((file, folders.look(file.stat())) for file in files))


@lru_cache(maxsize=64)
def _hash_of(files: tuple[tuple[Path, folders.Look], ...]) -> str:
    return hashlib.sha256("".join(f"{f.name}:{folders.file_hash(f)};" for f, _ in files).encode()).hexdigest()


def _code_asked_for(config: Mapping[str, Any]) -> str:
    """The code that a config asks to run, its own or a repository's: remote code, or kernels for attention."""
    found = config.get("auto_map")
    if found:
        return ", ".join(map(str, found.values())) if isinstance(found, dict) else str(found)[:80]
    for key, value in config.items():
        if "attn_implementation" in key and any(sign in str(value) for sign in "/:@"):
            return f"{key}: {str(value)[:80]}"
    inner = (part for part in config.values() if isinstance(part, dict))
    return next((asked for asked in map(_code_asked_for, inner) if asked), "")
