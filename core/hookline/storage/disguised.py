"""Recognises files that are not what their name says: Git-LFS pointers, compressed files, and files of another kind."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from hookline.storage.folders import Look, look

__all__ = ["compressed", "foreign", "packing", "pointer"]

POINTER = b"version https://git-lfs.github.com/"
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
ENDINGS = {"gzip": ".gz", "zstd": ".zst", "bzip2": ".bz2", "xz": ".xz"}
BINARY = {b"PAR1": ("a Parquet file", ".parquet"), b"ARROW1": ("an Arrow file", ".arrow")}


def pointer(path: Path) -> tuple[str, str] | None:
    """What is wrong with a file that is a Git-LFS pointer, and what to do; None for any other file."""
    if _head(path).startswith(POINTER):
        return f"{path} is a Git-LFS pointer, not the file itself", "fetch the file: git lfs pull"
    return None


def packing(path: Path) -> str | None:
    """What a file is compressed with, from its first bytes; None for a file that is not compressed."""
    return next((kind for start, kind in COMPRESSED.items() if _head(path).startswith(start)), None)


def compressed(path: Path) -> tuple[str, str] | None:
    """What is wrong with a text file that is compressed, and what to do; None for any other file."""
    kind = packing(path)
    if not kind:
        return None
    hint = f"rename it to {path.name}{ENDINGS[kind]}" if kind in ENDINGS else "unpack it first"
    return f"{path} is compressed with {kind}, which its name does not say", hint


def foreign(path: Path) -> tuple[str, str] | None:
    """What is wrong with a text file that is compressed or of a binary kind, and what to do; None for any other file."""
    for start, (what, ending) in BINARY.items():
        if _head(path).startswith(start):
            return f"{path} is {what}, not text", f"rename it to {path.with_suffix(ending).name}"
    return compressed(path)


def _head(path: Path) -> bytes:
    return _read_head(path, look(path.stat()))


@lru_cache(maxsize=256)
def _read_head(path: Path, unchanged: Look) -> bytes:
    """unchanged: what the file looks like, so that one that has changed is read again."""
    with path.open("rb") as file:
        return file.read(len(POINTER))
