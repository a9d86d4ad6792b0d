"""Recognises files that are not what their name says: Git-LFS pointers, and compressed files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from hookline.storage.folders import Look, look

__all__ = ["compressed", "pointer"]

POINTER = b"version https://git-lfs.github.com/"
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}


def pointer(path: Path) -> tuple[str, str] | None:
    """What is wrong with a file that is a Git-LFS pointer, and what to do; None for any other file."""
    if _head(path).startswith(POINTER):
        return f"{path} is a Git-LFS pointer, not the file itself", "fetch the file: git lfs pull"
    return None


def compressed(path: Path) -> tuple[str, str] | None:
    """What is wrong with a text file that is compressed, and what to do; None for any other file."""
    kind = next((kind for start, kind in COMPRESSED.items() if _head(path).startswith(start)), None)
    return (f"{path} is compressed with {kind}", "unpack it first") if kind else None


def _head(path: Path) -> bytes:
    return _read_head(path, look(path.stat()))


@lru_cache(maxsize=256)
def _read_head(path: Path, unchanged: Look) -> bytes:
    """unchanged: what the file looks like, so that one that has changed is read again."""
    with path.open("rb") as file:
        return file.read(len(POINTER))
