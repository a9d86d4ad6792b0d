"""`hookline store`: check a store, back it up, copy it to another place, and forget an annotator."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

import hookline
from hookline import Argument, Command, ExperimentError, Out

TAKES = {
    "verify": (0, 0, "STORE"),
    "backup": (1, 1, "STORE FILE"),
    "copy": (1, 1, "STORE TARGET"),
    "forget": (1, 999, "STORE ANNOTATOR [FILE…]"),
}
"""Verb → how many further arguments it takes, and how it is typed."""


class Stores(Command):
    """Look after a store of answers: `verify` it, `backup` it into a file, `copy` it to another, `forget` an annotator.

    `verify` reads everything, checks the chain of hashes, and prints the hash of the newest entry: keep it elsewhere. `copy` goes on
    where an earlier one was killed. `forget` also removes the annotator from files of events that were exported.
    """

    class Config(hookline.Config):
        verb: Annotated[Literal["verify", "backup", "copy", "forget"], Argument("verify|backup|copy|forget")]
        """What to do."""
        store: Annotated[str, Argument("STORE")]
        """sqlite:///FILE, postgresql://…, or FILE.jsonl."""
        further: Annotated[list[str], Argument("[FILE|TARGET|ANNOTATOR [FILE…]]")] = Field(default_factory=list)
        """`backup`: the file to write; `copy`: the other store; `forget`: the annotator, and exported files."""

    def run(self, out: Out) -> int:
        verb, further = self.config.verb, self.config.further
        least, most, typed = TAKES[verb]
        if not least <= len(further) <= most:
            raise ExperimentError(f"`{verb}` takes {typed}", f"hookline store {verb} {typed}")
        with hookline.store(self.config.store, create=False) as store:
            found: dict[str, Any] = getattr(self, f"_{verb}")(store, out, *further)
        out.value(found)
        return 0

    def _verify(self, store: hookline.Store, out: Out) -> dict[str, Any]:
        found = store.verify()
        c = found.counts
        out.text(
            f"{self.config.store}: {c.items} items, {c.complete} complete; {c.events} events of {c.annotators} annotators"
        )
        out.text(f"{found.entries} entries, chain intact, newest {found.head}")
        if found.unreadable:
            out.text(f"{found.unreadable} entries of forgotten annotators, whose key was destroyed")
        return asdict(found)

    def _backup(self, store: hookline.Store, out: Out, file: str) -> dict[str, Any]:
        store.backup(Path(file))
        out.text(f"{self.config.store} → {file}")
        return {"file": file}

    def _copy(self, store: hookline.Store, out: Out, target: str) -> dict[str, Any]:
        with hookline.store(target) as other:
            count = store.copy_to(other)
            found = other.verify()
        out.text(f"{count} items and events → {target}, which has {found.counts.events} events; newest {found.head}")
        return {"copied": count, **asdict(found)}

    def _forget(self, store: hookline.Store, out: Out, annotator: str, *files: str) -> dict[str, Any]:
        removed = {file: hookline.remove_annotator(file, annotator) for file in files}
        count = store.forget(annotator)
        out.text(f"{self.config.store}: {count} events of '{annotator}' removed, and the key destroyed")
        for file, rows in removed.items():
            out.text(f"{file}: {rows} rows removed")
        out.text("backups that were made before, and runs that collected or read these answers, still have them")
        return {"events": count, "files": removed}
