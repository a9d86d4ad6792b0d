"""Compressed files: unpacked once per process into a temporary folder, which is removed when the process ends; and packed."""

from __future__ import annotations

import atexit
import bz2
import contextlib
import fcntl
import gzip
import lzma
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, BinaryIO

from hookline.errors import DataError
from hookline.storage.disguised import packing
from hookline.storage.folders import Look, look

__all__ = ["KINDS", "inner", "locked_folder", "pack", "unpacked"]

KINDS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}
"""The endings of compressed files, and what they are compressed with."""
CHUNK = 1 << 20
RESERVE = 1 << 30
"""Bytes that unpacking leaves free on the disk."""
MOST_TIMES = 1000
"""A file that becomes more than a GiB and this many times as large is taken for a mistake or an attack."""
PREFIX = "hookline-unpacked-"


def inner(path: Path) -> Path | None:
    """The path without the ending of a compressed file; None for a path without one."""
    return path.with_suffix("") if path.suffix.lower() in KINDS else None


def unpacked(path: Path) -> Path:
    """The content of a compressed file, as a file of the same name without the ending, e.g. `rows.jsonl`.

    A process unpacks a file once, and again if it has changed. Raises DataError for a damaged file, one that is not
    compressed in the way that its name says, and one that is too large for the disk; `TMPDIR` names another disk.
    """
    kind = KINDS[path.suffix.lower()]
    found = packing(path)
    if found != kind:
        bare = path.with_suffix("").name
        other = next((bare + ending for ending, name in KINDS.items() if name == found), bare)
        how = f"compressed with {found}" if found else "not compressed"
        raise DataError(f"{path} is {how}, although its name says {kind}", f"rename it to {other}")
    key = (path.absolute(), look(path.stat()))
    if key not in _known or not _known[key].exists():
        _known[key] = _unpack(path, kind)
    return _known[key]


_known: dict[tuple[Path, Look], Path] = {}


def _unpack(path: Path, kind: str) -> Path:
    target = Path(tempfile.mkdtemp(dir=_folder(os.getpid()))) / path.with_suffix("").name
    try:
        with path.open("rb") as packed, target.open("wb") as file:
            _copy(path, _parts(packed, kind), file)
    except DataError:
        shutil.rmtree(target.parent, ignore_errors=True)
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as err:
        shutil.rmtree(target.parent, ignore_errors=True)
        if getattr(err, "errno", None):  # the disk's error, not the decoder's
            raise DataError(
                f"{path} cannot be unpacked in {target.parent.parent}: {err}", "set TMPDIR to another disk"
            ) from None
        raise DataError(
            f"{path} is damaged or cut off: its {kind} data ends or breaks early ({err})", "fetch it again"
        ) from None
    except BaseException:
        shutil.rmtree(target.parent, ignore_errors=True)
        raise
    return target


def _copy(path: Path, parts: Iterator[bytes], file: BinaryIO) -> None:
    size, written, seen = path.stat().st_size, 0, 0
    for part in parts:
        written += file.write(part)
        if written - seen < 64 * CHUNK:
            continue
        seen = written
        if written > max(RESERVE, MOST_TIMES * size):
            raise DataError(
                f"{path} becomes more than {MOST_TIMES} times as large when it is unpacked",
                "unpack it yourself, if that is right",
            )
        free = shutil.disk_usage(file.name).free
        if free < RESERVE:
            raise DataError(
                f"{path} unpacks to more than {written / 2**30:.0f} GiB, and {tempfile.gettempdir()} is nearly full",
                "set TMPDIR to a larger disk, or unpack it there",
            )


def _parts(packed: IO[bytes], kind: str) -> Iterator[bytes]:
    if kind == "zstd":
        yield from _zstd_parts(packed)
        return
    openers: dict[str, Callable[[IO[bytes]], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
    with openers[kind](packed) as file:
        while part := file.read(CHUNK):
            yield part


def pack(plain: Path, target: Path) -> None:
    """Compress a file as the ending of the target says."""
    openers: dict[str, Callable[[Path, str], Any]] = {
        ".gz": partial(gzip.GzipFile, compresslevel=6, mtime=0),
        ".bz2": bz2.open,
        ".xz": lzma.open,
    }
    opener = openers.get(target.suffix.lower()) or _zstandard(target).open
    with plain.open("rb") as file, opener(target, "wb") as packed:
        shutil.copyfileobj(file, packed, CHUNK)


def _zstandard(path: object) -> Any:
    try:
        import zstandard
    except ImportError:
        raise DataError(f"{path} needs zstandard", "pip install 'hookline[data]'") from None
    return zstandard


def _zstd_parts(packed: IO[bytes]) -> Iterator[bytes]:
    """The frames of a file, each to its end: the library's own stream takes a cut-off frame for a whole one."""
    zstandard = _zstandard(packed.name)
    frame = None
    try:
        while part := packed.read(4096):  # a small part may become 128 MiB
            while part:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                yield frame.decompress(part)
                part = frame.unused_data
                if frame.eof:
                    frame = None
    except zstandard.ZstdError as err:
        raise ValueError(str(err)) from None
    if frame:
        raise EOFError("the last frame has no end")


@cache
def _folder(process: int) -> Path:
    """This process's temporary folder. Folders of processes that were killed are removed first."""
    folder, _ = locked_folder(Path(tempfile.gettempdir()), f"{PREFIX}{process}-", PREFIX)
    atexit.register(_remove, folder, process)
    return folder


def locked_folder(within: Path, prefix: str, others: str) -> tuple[Path, int]:
    """A new folder that is locked as long as the returned handle is open, at most until the process ends.

    Folders whose names begin with `others` and that are not locked were left by killed processes, and are removed.
    """
    for old in within.glob(f"{others}*"):
        with contextlib.suppress(OSError), _locked(old):
            shutil.rmtree(old, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=".hookline-", dir=within))
    handle = os.open(made, os.O_RDONLY)
    with contextlib.suppress(OSError):  # a disk without locks; then nobody else removes the folder either
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return made.rename(made.with_name(prefix + made.name.removeprefix(".hookline-"))), handle


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a fork does not own it
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder that no other process holds. Raises OSError for one that is held, or belongs to another user."""
    handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if os.fstat(handle).st_uid != os.getuid():
            raise PermissionError
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
