"""Trees of tensors and plain values on disk, as safetensors and JSON; pickle is never used."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from hookline.errors import CheckpointError, a

__all__ = [
    "Unsavable",
    "digest",
    "flatten",
    "hash_tensors",
    "load_tensors",
    "load_tree",
    "save_tensors",
    "save_tree",
    "unflatten",
]


class Unsavable(TypeError):
    """Raised for a value in a tree that JSON and safetensors cannot store, with the path and a description of the
    value."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path, self.what = path, what


MARKERS = ("__tensor__", "__float__", "__dict__")
"""Keys of the small dicts that stand in JSON for what JSON does not have."""


def flatten(tree: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """Convert a tree to JSON values; its tensors are added to `tensors` by path, on the CPU. Raises Unsavable.

    A dict of the user's that has the key of a marker is itself marked, so that `unflatten` returns it unchanged.
    """
    if isinstance(tree, Tensor):
        if tree.layout != torch.strided or tree.device.type == "meta":
            raise Unsavable(path, f"a tensor on meta or in the layout {tree.layout}")
        tensors[path] = tree.detach().contiguous().cpu().clone()
        return {"__tensor__": path}
    if isinstance(tree, Mapping):
        if not all(isinstance(key, str) for key in tree):
            raise Unsavable(path, "a dict whose keys are not all text")
        flat = {key: flatten(item, tensors, _below(path, key)) for key, item in tree.items()}
        return {"__dict__": flat} if any(key in flat for key in MARKERS) else flat
    if isinstance(tree, list | tuple):
        return [flatten(item, tensors, f"{path}/{i}") for i, item in enumerate(tree)]
    if isinstance(tree, float) and not math.isfinite(tree):
        return {"__float__": repr(tree)}
    if tree is None or isinstance(tree, str | int | float | bool):
        return tree
    raise Unsavable(path, a(type(tree).__name__))


def digest(tree: Any) -> str:
    """The hash of a tree; of one that cannot be saved, its problem."""
    tensors: dict[str, Tensor] = {}
    try:
        values = flatten(tree, tensors)
    except Unsavable as err:
        return str(err)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest() + hash_tensors(tensors)


def _below(path: str, key: str) -> str:
    """The path of an item, with keys escaped as in JSON pointers, so that no two items have the same path."""
    key = key.replace("~", "~0").replace("/", "~1") or "~"
    return f"{path}/{key}" if path else key


def unflatten(values: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Rebuild the tree from the output of `flatten`; tuples become lists."""
    if isinstance(values, dict):
        if "__dict__" in values:
            return {key: unflatten(item, tensors) for key, item in values["__dict__"].items()}
        if "__tensor__" in values:
            return tensors[values["__tensor__"]]
        if "__float__" in values:
            return float(values["__float__"])
        return {key: unflatten(item, tensors) for key, item in values.items()}
    return [unflatten(item, tensors) for item in values] if isinstance(values, list) else values


def save_tree(folder: Path, name: str, tree: Mapping[str, Any], owner: str = "the core") -> None:
    """Write a tree of tensors and plain values as NAME.safetensors and NAME.json."""
    tensors: dict[str, Tensor] = {}
    try:
        text = json.dumps(flatten(tree, tensors), indent=None)
    except Unsavable as err:
        raise CheckpointError(
            f"{owner} keeps '{err.path}' in its state, {err.what}, which cannot be saved",
            "keep tensors, numbers, text, lists and dicts with text keys in state_dict()",
        ) from None
    save_tensors(folder / f"{name}.safetensors", tensors)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to one file; without tensors, no file is written."""
    from safetensors.torch import save_file

    if tensors:
        save_file(tensors, path, metadata={"format": "pt"})  # which transformers asks for


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors that `save_tensors` wrote."""
    from safetensors.torch import load_file

    return load_file(path) if path.exists() else {}


def load_tree(folder: Path, name: str) -> dict[str, Any]:
    """Read the tree that `save_tree` wrote."""
    try:
        tensors = load_tensors(folder / f"{name}.safetensors")
        loaded: dict[str, Any] = unflatten(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")), tensors)
    except (OSError, ValueError, SafetensorError, KeyError) as err:
        raise CheckpointError(f"{folder / name}: {err}", "the folder is damaged; use an older checkpoint") from err
    return loaded


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of tensors, in order of name."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous().cpu()
        sha.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
