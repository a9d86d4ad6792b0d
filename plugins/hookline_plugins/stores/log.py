"""The log of a store: a chain of entries, each with a hash of all before it, in which what is personal is sealed.

An entry that an annotator caused is encrypted under the annotator's own key (AES-256-GCM). The hash is of what is
written, so that the chain can be verified without any key, and after a key was destroyed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hookline import DataError

START = ""
"""The hash before the first entry."""
NONCE = 12


@dataclass(frozen=True)
class Entry:
    """One change of a store."""

    seq: int
    """Its number, from 1."""
    kind: str
    """`item`, `lease`, `event` or `forget`."""
    who: str
    """The annotator who caused it, by a random number, or who is forgotten; empty for an item."""
    at: float
    """When it was written, in seconds since 1970; clocks may go back."""
    body: str
    """JSON: of an item as it is, of a lease and an event sealed; empty for `forget`."""
    hash: str
    """Of the hash of the entry before, and of everything above."""

    @classmethod
    def after(cls, seq: int, head: str, kind: str, who: str, at: float, body: str) -> Entry:
        """The entry that follows number `seq`, whose hash is `head`."""
        return cls(seq + 1, kind, who, at, body, _hash(head, seq + 1, kind, who, at, body))

    def follows(self, seq: int, head: str) -> bool:
        """Whether this is the entry after number `seq` with the hash `head`, as it was written."""
        expected = _hash(head, self.seq, self.kind, self.who, self.at, self.body)
        return self.seq == seq + 1 and self.hash == expected


@dataclass(frozen=True)
class Annotator:
    """Who an entry's `who` is, and the key of what they said. Without it, the entries are numbers and noise."""

    who: str
    """A random number."""
    name: str
    """The annotator's pseudonym."""
    key: str
    """The key, in base64."""

    @classmethod
    def new(cls, name: str) -> Annotator:
        """An annotator with a new number and a new key."""
        return cls(os.urandom(12).hex(), name, base64.b64encode(os.urandom(32)).decode())

    def seal(self, content: Mapping[str, Any]) -> str:
        """JSON that only this annotator's key opens."""
        nonce = os.urandom(NONCE)
        sealed = _cipher(self.key).encrypt(nonce, _json(content).encode(), self.who.encode())
        return base64.b64encode(nonce + sealed).decode()

    def unseal(self, entry: Entry, where: str) -> dict[str, Any]:
        """What `seal` was given. Raises DataError that names `where` for anything else."""
        try:
            raw = base64.b64decode(entry.body, validate=True)
            opened = _cipher(self.key).decrypt(raw[:NONCE], raw[NONCE:], self.who.encode())
        except Exception:  # of the library: InvalidTag, ValueError, …
            raise DataError(
                f"{where}: entry {entry.seq} cannot be decrypted with its annotator's key", "restore a backup"
            ) from None
        found: dict[str, Any] = json.loads(opened)
        return found


def forget_keys() -> None:
    """Drop the keys that are in memory for speed."""
    _cipher.cache_clear()


def plain(content: Mapping[str, Any]) -> str:
    """The body of an entry that is not personal."""
    return _json(content)


def verified(entries: Iterable[Entry], where: str, seq: int = 0, head: str = START) -> Iterator[Entry]:
    """The same entries, each after it was checked to follow the one before. Raises DataError that names the first that does not."""
    for entry in entries:
        if not entry.follows(seq, head):
            what = f"entry {seq + 1} is missing" if entry.seq != seq + 1 else f"entry {entry.seq} was changed"
            raise DataError(f"{where}: {what}; the chain of hashes is broken there", "restore a backup")
        seq, head = entry.seq, entry.hash
        yield entry


_json = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def _hash(*parts: Any) -> str:
    return hashlib.sha256(_json(parts).encode()).hexdigest()


@lru_cache(maxsize=256)
def _cipher(key: str) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise DataError("a store needs cryptography", "pip install 'hookline[feedback]'") from None
    return AESGCM(base64.b64decode(key))
