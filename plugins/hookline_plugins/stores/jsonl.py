"""A store in one file of JSON lines, which are the log, and a file of keys beside it. For one process and thousands of items."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import RLock

from hookline import DataError, ServiceError
from hookline_plugins.stores.ledger import Ledger, LedgerConfig, contents
from hookline_plugins.stores.log import Annotator, Entry
from hookline_plugins.stores.tables import Memory, Tables

BEGINNING = b'{"seq":'
"""How each line begins."""


class JSONL(Ledger):
    """A file of JSON lines: each line is an entry of the log, and nothing is ever changed in it.

    The keys are in `FILE.keys`, which only its owner can read. The file is locked while it is open.
    """

    suffixes = (".jsonl",)

    def __init__(self, config: LedgerConfig) -> None:
        super().__init__(config)
        self._tables: Lines | None = None
        self._reads = RLock()

    def open(self, *, create: bool = True) -> None:
        path = Path(self.config.url).expanduser()
        if not create and not path.exists():
            raise DataError(f"there is no store {path}", "check the path")
        if self._tables is None:
            self._tables = Lines(path, self.where)

    def close(self) -> None:
        with self._reads:
            if self._tables is not None:
                self._tables.close()
            self._tables = None

    @contextmanager
    def _reading(self) -> Iterator[Tables]:
        with self._reads:
            yield self._open

    @contextmanager
    def _writing(self) -> Iterator[Tables]:
        with self._reads, self._open.transaction():
            yield self._open

    @property
    def _open(self) -> Lines:
        if self._tables is None:
            raise DataError(f"the store {self.where} is closed", "open it: hookline.store(URL)")
        return self._tables

    def backup(self, path: Path) -> None:
        if path.exists():
            raise DataError(f"{path} already exists", "name another file")
        aside = path.with_name(f".{path.name}.aside")
        for old in (aside, keys_of(aside)):
            old.unlink(missing_ok=True)
        with type(self)(self.config.model_copy(update={"url": str(aside)})) as copy:
            copy.open()
            self.copy_to(copy)
        keys_of(aside).replace(keys_of(path))
        aside.replace(path)
        _sync(path.parent)


class Lines(Memory):
    """Tables in memory, whose log is a file."""

    def __init__(self, path: Path, where: str) -> None:
        super().__init__()
        self._path, self._where = path, where
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._reader = path.open("rb")
        except OSError as err:
            raise DataError(
                f"{path} cannot be opened: {err.strerror}", "check its folder and its permissions"
            ) from None
        self._starts = array("Q")
        """Where in the file each entry begins."""
        self._end = 0
        """Where the last entry ends. What lies behind it was never acknowledged."""
        self._staged: list[bytes] = []
        """Lines of this transaction, which are not in the file yet."""
        try:
            self._lock()
            self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._reader.close()
        os.close(self._handle)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError(
                f"{self._path} is in use by another process",
                "stop it, or use a store for several: sqlite:///answers.db",
            ) from None

    def _read(self) -> None:
        """Make the tables from the file. A last line that a kill cut off was never acknowledged, and is removed."""
        keys = {one.who: one for one in read_keys(self._path)}
        self._people = dict(keys)
        for entry, content in contents(self._lines(), self._people, self._where):
            self.index(entry, content)
            self._head = (entry.seq, entry.hash)
        self._undo.clear()
        os.ftruncate(self._handle, self._end)
        if self._people.keys() != keys.keys():  # a kill came between a `forget` and the removal of its key
            write_keys(self._path, self._people.values())

    def _lines(self) -> Iterator[Entry]:
        for number, raw in enumerate(iter(self._reader.readline, b""), 1):
            where = f"{self._where} line {number}"
            if not raw.endswith(b"\n") and raw.startswith(BEGINNING[: len(raw)]):
                return
            entry = _entry(raw, where)
            self._starts.append(self._end)
            self._end += len(raw)
            yield entry

    def entry(self, seq: int) -> Entry:
        if seq > len(self._starts):
            return _entry(self._staged[seq - len(self._starts) - 1], self._where)
        self._reader.seek(self._starts[seq - 1])
        return _entry(self._reader.readline(), f"{self._where} line {seq}")

    def write(self, entries: Sequence[Entry]) -> None:
        super().write(entries)
        for entry in entries:
            self._staged.append(json.dumps(vars(entry), separators=(",", ":")).encode() + b"\n")
            self._undo.append(self._staged.pop)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep what is done within on the disk, or undo it. The keys of those who are new come before their entries, and the
        keys of those who are forgotten go after, so that a kill between leaves what can be read."""
        people = dict(self._people)
        with self.savepoint():
            yield
            with self._told("nothing of this was stored"):
                if new := self._people.keys() - people.keys():
                    write_keys(self._path, [*people.values(), *(self._people[who] for who in new)])
                self._append(b"".join(self._staged))
        for raw in self._staged:
            self._starts.append(self._end)
            self._end += len(raw)
        self._staged.clear()
        self._undo.clear()
        if people.keys() - self._people.keys():
            with self._told("the key is still there, and goes when the store is opened again"):
                write_keys(self._path, self._people.values())

    def _append(self, lines: bytes) -> None:
        """Have lines on the disk. What an earlier failure left behind the last entry is removed first."""
        os.ftruncate(self._handle, self._end)
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(self._handle, rest) :]
        os.fsync(self._handle)

    @contextmanager
    def _told(self, state: str) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            full = err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            why = "the disk is full" if full else err.strerror
            raise ServiceError(
                f"{self._path} cannot be written: {why}; {state}", "free some space, then repeat it"
            ) from None


def _entry(raw: bytes, where: str) -> Entry:
    try:
        return Entry(**json.loads(raw))
    except (ValueError, TypeError):
        raise DataError(f"{where} is not an entry of a store", "restore a backup, or name another file") from None


def keys_of(path: Path) -> Path:
    """The file of a store's keys."""
    return path.with_name(f"{path.name}.keys")


def read_keys(path: Path) -> list[Annotator]:
    """The annotators of a store, with their keys."""
    try:
        lines = keys_of(path).read_text(encoding="utf-8").splitlines()
        return [Annotator(**json.loads(line)) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as err:
        raise DataError(f"{keys_of(path)} is damaged: {err}", "restore it from a backup") from None


def write_keys(path: Path, people: Iterable[Annotator]) -> None:
    """Replace the file of keys. When the new one is on the disk, the bytes of the old one are overwritten."""
    file, aside = keys_of(path), path.with_name(f".{path.name}.keys.aside")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as new:
        new.write(b"".join(json.dumps(vars(one)).encode() + b"\n" for one in people))
        new.flush()
        os.fsync(new.fileno())
    with file.open("r+b") if file.exists() else nullcontext() as old:
        aside.replace(file)
        _sync(file.parent)
        if old:
            old.write(b"\0" * os.fstat(old.fileno()).st_size)
            old.flush()
            os.fsync(old.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
