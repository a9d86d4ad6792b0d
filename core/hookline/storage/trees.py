"""Trees of tensors and plain values on disk: safetensors and JSON, nothing is ever unpickled."""

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

from hookline.errors import CheckpointError

__all__ = ["hash_tensors", "load_tree", "save_tree"]


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
