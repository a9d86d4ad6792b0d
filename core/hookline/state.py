"""State on disk: trees of tensors and plain values, written aside, hashed, renamed, and verified before use.

safetensors and JSON only: nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hookline.errors import CheckpointError

__all__ = ["hash_tensors", "load_tree", "save_tree", "verify", "write_aside"]

FORMAT = 1
MANIFEST = "manifest.json"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_hash(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


@contextlib.contextmanager
def write_aside(target: Path, about: Mapping[str, Any]) -> Iterator[Path]:
    """Fill a folder so that a kill anywhere leaves the old one or the new one, never a third thing.

    Yields a folder beside the target; on leaving, its files are synced, a manifest with size and hash of each is
    written last, the folder is renamed, and the parent is synced. Raises CheckpointError when the disk is full.
    """
    aside = target.with_name(f".{target.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        listed = {}
        for path in files:
            _sync(path)
            listed[path.relative_to(aside).as_posix()] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        manifest = aside / MANIFEST
        manifest.write_text(json.dumps({"format": FORMAT, **about, "files": listed}, indent=1), encoding="utf-8")
        _sync(manifest)
        _sync(aside)
        if target.exists():
            old = target.with_name(f".{target.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
            aside.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            aside.rename(target)
        _sync(target.parent)
    except BaseException as err:
        shutil.rmtree(aside, ignore_errors=True)
        full = isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left" in str(err) or "os error 28" in str(err):
            free = shutil.disk_usage(target.parent).free
            raise CheckpointError(
                f"disk full while saving {target}: {free} bytes are free; the last complete save is untouched",
                "free some space and run the same command again",
            ) from err
        if isinstance(err, OSError):
            raise CheckpointError(f"{target} cannot be written: {err.strerror or err}", "check the folder") from err
        raise


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, once every file in it is shown to be whole. Raises CheckpointError naming the file."""
    mend = "remove it; an older checkpoint is used when there is one"
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listed: dict[str, dict[str, Any]] = manifest["files"]
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {MANIFEST}: it was never completed", mend) from None
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise CheckpointError(f"{folder / MANIFEST} is damaged: {err}", mend) from None
    if manifest.get("format", 0) > FORMAT:
        raise CheckpointError(
            f"{folder} has format {manifest['format']}, this Hookline reads {FORMAT}", "upgrade hookline"
        )
    for name, expected in listed.items():
        path = folder / name
        if ".." in Path(name).parts or not path.is_file():
            raise CheckpointError(f"{path} is missing", mend)
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise CheckpointError(f"{path} has {size} bytes, its manifest says {expected['bytes']}", mend)
        if file_hash(path) != expected["sha256"]:
            zeros = not any(path.read_bytes()) if size < 1 << 28 else False
            what = "is all zeros (a crash while it was written?)" if zeros else "does not match its hash: bytes changed"
            raise CheckpointError(f"{path} {what}", mend)
    return manifest


def save_tree(folder: Path, name: str, tree: Mapping[str, Any], owner: str = "the core") -> None:
    """Write a tree of tensors and plain values as NAME.safetensors and NAME.json."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}

    def plain(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = value.detach().contiguous().cpu().clone()
            return {"__tensor__": path}
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                raise CheckpointError(f"{owner} keeps state at '{path}' under keys that are no text", "use text keys")
            return {key: plain(item, f"{path}/{key}" if path else str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item, f"{path}/{i}") for i, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            return {"__float__": repr(value)}
        if value is None or isinstance(value, str | int | float | bool):
            return value
        raise CheckpointError(
            f"{owner} keeps '{path}' in its state, a {type(value).__name__}, which cannot be saved",
            "keep tensors, numbers, text, lists and dicts in state_dict()",
        )

    text = json.dumps(plain(tree, ""), indent=None)
    if tensors:
        save_file(tensors, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def load_tree(folder: Path, name: str) -> dict[str, Any]:
    """What save_tree wrote."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        path = folder / f"{name}.safetensors"
        tensors = load_file(path) if path.exists() else {}
        tree = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as err:
        raise CheckpointError(f"{folder / name}: {err}", "the folder is damaged; use an older checkpoint") from err

    def full(value: Any) -> Any:
        if isinstance(value, dict):
            if "__tensor__" in value:
                return tensors[value["__tensor__"]]
            if "__float__" in value:
                return float(value["__float__"])
            return {key: full(item) for key, item in value.items()}
        return [full(item) for item in value] if isinstance(value, list) else value

    loaded: dict[str, Any] = full(tree)
    return loaded


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in order of name."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous().cpu()
        sha.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
