"""Folders that survive a kill: written to a temporary folder, hashed, renamed, and verified before use."""

from __future__ import annotations

import contextlib
import copy
import datetime
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from safetensors import SafetensorError

from hookline.errors import CheckpointError

__all__ = ["WRITE_ERRORS", "Look", "file_hash", "look", "take_lock", "verify", "write_aside", "write_error"]

FORMAT = 1
MANIFEST = "manifest.json"
WRITE_ERRORS = (OSError, SafetensorError)
"""The exceptions that a full or failing disk raises."""

Look = tuple[int, int, int]
"""Size, modification time and inode of a file; if these differ, the content is assumed to differ."""


def look(about: os.stat_result) -> Look:
    """Size, modification time and inode of a file."""
    return about.st_size, about.st_mtime_ns, about.st_ino


def take_lock(folder: Path) -> TextIO:
    """Lock a folder until the returned file is closed or the process ends. Raises CheckpointError if the folder is
    locked."""
    lock = (folder / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise CheckpointError(
            f"{folder} is in use by {holder}", "wait for it, stop it, or choose another --out"
        ) from None
    lock.truncate(0)
    since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    lock.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
    lock.flush()
    return lock


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
    """Write a folder so that a kill at any time leaves either the complete old folder or the complete new one.

    Yields a temporary folder next to the target. On exit, its files are synced, a manifest with the size and hash of
    each file is written last, the folder is renamed, and the parent is synced. The folder then counts as verified.
    `about` is read on exit. Raises CheckpointError if the disk is full.
    """
    aside, old = target.with_name(f".{target.name}.aside"), target.with_name(f".{target.name}.old")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)  # the process was killed between the two renames below
        aside.mkdir(parents=True)
        yield aside
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        listed = {}
        for path in files:
            _sync(path)
            listed[path.relative_to(aside).as_posix()] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        manifest = aside / MANIFEST
        values = {"format": FORMAT, **about, "files": listed}
        manifest.write_text(json.dumps({**values, "sha256": _own_hash(values)}, indent=1), encoding="utf-8")
        _sync(manifest)
        seen = _looks(aside)
        for folder in {path.parent for path in files} - {aside}:
            _sync(folder)
        _sync(aside)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
            try:
                aside.rename(target)
            except BaseException:
                old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            aside.rename(target)
        _sync(target.parent)
        _remember(target, seen, json.loads(json.dumps(values)))
    except BaseException as err:
        failed = write_error(target, err, aside) if isinstance(err, WRITE_ERRORS) else None
        shutil.rmtree(aside, ignore_errors=True)
        if failed:
            raise failed from err
        raise


def write_error(target: Path, err: BaseException, aside: Path | None = None) -> CheckpointError:
    """The error for a failed write; for a full disk, with the space that is free now: ask before anything is removed.

    aside: the folder that was being written. What it holds tells how much fitted.
    """
    text = getattr(err, "strerror", None) or str(err)
    number = getattr(err, "errno", None)
    if number == errno.EDQUOT:
        what = f"disk full while writing {target}: this user's quota is used up"
    elif number == errno.ENOSPC or "No space left" in text or "os error 28" in text:
        free = shutil.disk_usage(next((p for p in (target, *target.parents) if p.exists()), Path.cwd())).free
        what = f"disk full while writing {target}: {free} bytes were free"
        what += f" after {sum(look[0] for _, look in _looks(aside))} of its bytes" if aside else ""
    else:
        return CheckpointError(
            f"{target} cannot be written: {text}; what was saved before is untouched",
            "check the folder and the disk, then run the same command again",
        )
    return CheckpointError(
        f"{what}; what was saved before is untouched", "free some space, then run the same command again"
    )


def _own_hash(values: Mapping[str, Any]) -> str:
    """The hash of the manifest itself, because a changed digit in it, e.g. of the step, would change a run
    unnoticed."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


_verified: dict[Path, tuple[frozenset[tuple[str, Look]], dict[str, Any]]] = {}
"""Folders that this process has hashed: the state of their files at that time, and the manifest."""
MOST_VERIFIED = 1000
"""The maximum number of remembered folders; other folders are hashed again."""


def verify(folder: Path) -> dict[str, Any]:
    """Verify every file of a folder and return the manifest. Raises CheckpointError naming a damaged file.

    A process hashes a folder once, when it writes or first verifies the folder, and again only if the size,
    modification time or inode of a file has changed.
    """
    place, seen = folder.absolute(), _looks(folder)
    if place not in _verified or _verified[place][0] != seen:
        _remember(folder, seen, _verify(folder))
    return copy.deepcopy(_verified[place][1])


def _remember(folder: Path, seen: frozenset[tuple[str, Look]], manifest: dict[str, Any]) -> None:
    _verified[folder.absolute()] = seen, manifest
    if len(_verified) > MOST_VERIFIED:
        del _verified[next(iter(_verified))]


def _looks(folder: Path) -> frozenset[tuple[str, Look]]:
    """The `Look` of every file, by name."""
    found = set()
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # unreadable files are reported by name below
            if path.is_file():
                found.add((path.relative_to(folder).as_posix(), look(path.stat())))
    return frozenset(found)


def _verify(folder: Path) -> dict[str, Any]:
    hint = "remove it; an older checkpoint is used when there is one"
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listed: dict[str, dict[str, Any]] = manifest["files"]
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {MANIFEST}: it was never completed", hint) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
        raise CheckpointError(f"{folder / MANIFEST} is damaged: {' '.join(str(err).split())}", hint) from None
    if manifest.pop("sha256", None) != _own_hash(manifest):
        raise CheckpointError(f"{folder / MANIFEST} does not match its own hash: bytes changed", hint)
    if manifest["format"] > FORMAT:
        raise CheckpointError(
            f"{folder} has format {manifest['format']}, this Hookline reads {FORMAT}", "upgrade hookline"
        )
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in listed and name != MANIFEST and not path.name.startswith("."):
            raise CheckpointError(f"{path} is not listed in the folder's manifest", "move it elsewhere")
    for name, expected in listed.items():
        path = folder / name
        if ".." in Path(name).parts or not path.is_file():
            raise CheckpointError(f"{path} is missing", hint)
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise CheckpointError(f"{path} has {size} bytes, but its manifest lists {expected['bytes']}", hint)
        if file_hash(path) != expected["sha256"]:
            zeros = not any(path.read_bytes()) if size < 1 << 28 else False
            what = "is all zeros (a crash while it was written?)" if zeros else "does not match its hash: bytes changed"
            raise CheckpointError(f"{path} {what}", hint)
    return manifest
