"""Who may do what: people with a role, links that work once, and signed sessions. There are no passwords.

A link's token and an application's key are 256 random bits, of which only the SHA-256 is kept. A session is the person's name,
signed with a secret of the file together with a number that rises when the person leaves, so a restart ends no session
and leaving ends all of them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hookline import DataError

__all__ = ["ROLES", "People", "Person"]

ROLES = ("annotator", "coordinator", "application")
"""What a person may be; an application posts feedback with a key and sees nothing."""
SESSION = 30 * 86400.0
"""Seconds for which a session lasts."""
LINK = 7 * 86400.0
"""Seconds for which a link works, if nobody uses it."""


@dataclass(frozen=True)
class Person:
    """Somebody who came in."""

    name: str
    """Their pseudonym, under which answers are stored."""
    role: str
    """One of `ROLES`."""


class People:
    """The people of one store, in one file: names, roles and hashes, which let nobody in who reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._seen: tuple[int, int] | None = None
        self._kept: dict[str, Any] = {}
        self._sessions: dict[str, tuple[str, int, int, str]] = {}
        """Sessions whose signature was right: name, number of departures, end, and what requests that write repeat."""
        with self._lock:
            if not path.exists():
                self._kept = {"secret": secrets.token_hex(32), "people": {}}
                self._write()
            self._read()

    # -- the file

    def _read(self) -> dict[str, Any]:
        """The file as it is now: another server may have written it."""
        try:
            stat = self.path.stat()
            if (look := (stat.st_mtime_ns, stat.st_size)) != self._seen:
                self._kept = json.loads(self.path.read_text(encoding="utf-8"))
                bytes.fromhex(self._kept["secret"])
                self._seen = look
                self._sessions = {}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as err:
            why = f"{err.strerror}" if isinstance(err, OSError) and err.strerror else "it is not a file of the page"
            raise DataError(
                f"{self.path} cannot be read: {why}", "restore it, or remove it and invite everybody again"
            ) from None
        return self._kept

    def _write(self) -> None:
        """Replace the file at once, readable by its owner alone."""
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            with os.fdopen(
                os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
            ) as file:
                json.dump(self._kept, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        except OSError as err:
            raise DataError(
                f"{self.path} cannot be written: {err.strerror}", "check its permissions and the disk"
            ) from None

    # -- people

    def names(self) -> Mapping[str, str]:
        """Name → role."""
        with self._lock:
            return {name: about["role"] for name, about in self._read()["people"].items()}

    def invite(self, name: str, role: str) -> str:
        """Add a person, or give one a new link, and return its token, which is not kept. The old link stops working."""
        if role not in ROLES:
            raise DataError(f"'{role}' is not a role", f"roles: {', '.join(ROLES)}")
        if not name.strip() or len(name) > 60 or not name.isprintable() or name != name.strip():
            raise DataError(f"{name[:60]!r} is not a name for an annotator", "give 1 to 60 printable characters")
        with self._lock:
            people = self._read()["people"]
            about = people.setdefault(name, {"role": role, "left": 0})
            token = secrets.token_urlsafe(32)
            about.update(role=role, token=_hashed(token), until=time.time() + LINK)
            if role == "application":
                about.pop("until")
            self._write()
            return token

    def enter(self, token: str) -> Person | None:
        """The person of a link, which does not work again; None for an unknown or old one."""
        with self._lock:
            found = self._of_token(token)
            if found is None or found[1]["role"] == "application":
                return None
            name, about = found
            about.pop("token")
            if about.pop("until") < time.time():
                self._write()
                return None
            self._write()
            return Person(name, about["role"])

    def application(self, key: str) -> Person | None:
        """The application with a key, which works until another is made."""
        with self._lock:
            found = self._of_token(key)
            return Person(found[0], "application") if found and found[1]["role"] == "application" else None

    def remove(self, name: str) -> None:
        """Let a person in no more."""
        with self._lock:
            self._read()["people"].pop(name, None)
            self._write()

    def leave(self, name: str) -> None:
        """End all sessions of a person."""
        with self._lock:
            if about := self._read()["people"].get(name):
                about["left"] += 1
                self._write()

    def _of_token(self, token: str) -> tuple[str, dict[str, Any]] | None:
        digest, found = _hashed(token), None
        for name, about in self._read()["people"].items():  # all of them, so that the time says nothing
            if hmac.compare_digest(about.get("token", ""), digest):
                found = name, about
        return found

    # -- sessions

    def session(self, person: Person) -> str:
        """What a browser keeps of a person who came in."""
        with self._lock:
            left = self._read()["people"][person.name]["left"]
        name = base64.urlsafe_b64encode(person.name.encode()).decode().rstrip("=")
        text = f"{name}.{left}.{int(time.time() + SESSION)}"
        return f"{text}.{self._signed(text)}"

    def of(self, session: str) -> Person | None:
        """The person of a session; None for one that was not given here, or has ended."""
        with self._lock:
            people = self._read()["people"]
            if session not in self._sessions:
                text, _, signature = session.rpartition(".")
                if not text or not hmac.compare_digest(self._signed(text), signature):
                    return None
                coded, number, end = text.split(".")
                name = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()
                self._sessions[session] = name, int(number), int(end), self._signed(f"csrf {session}")
            name, left, until, _ = self._sessions[session]
            about = people.get(name)
            if about is None or about["left"] != left or until < time.time():
                return None
            return Person(name, about["role"])

    def check(self, session: str) -> str:
        """What each request of a session that writes must repeat, and no other page can know."""
        known = self._sessions.get(session)
        return known[3] if known else self._signed(f"csrf {session}")

    def secret(self, purpose: str) -> bytes:
        """A key of 32 bytes for another purpose, the same after a restart."""
        return hmac.digest(self._key(), purpose.encode(), "sha256")

    def _signed(self, text: str) -> str:
        return hmac.digest(self._key(), text.encode(), "sha256").hex()

    def _key(self) -> bytes:
        with self._lock:
            return bytes.fromhex(self._read()["secret"])


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
