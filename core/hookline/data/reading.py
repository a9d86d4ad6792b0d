"""How the rows of one source become rows with Hookline's fields: its columns, its shape, its speakers, text as messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from hookline.batch.stages import Record
from hookline.config.data import DataSpec, Reads
from hookline.data.judged import EVENTS
from hookline.data.messages import speaker
from hookline.data.shapes import Shape, shape_of
from hookline.errors import DataError

__all__ = ["Reading", "column", "prompt_of", "reading_of"]

FIRST = 64
"""How many rows of a file decide its shape."""
SPOKEN = ("messages", "conversations", "prompt", "completion", "chosen", "rejected")
"""The fields that may hold messages."""
MISSING = object()


def column(record: Any, name: str) -> Any:
    """The value of a column; `a.b` is the field `b` of column `a`, `a.0` its first item. MISSING if there is none."""
    if isinstance(record, Mapping):
        if name in record:
            return record[name]
        head, dot, rest = name.partition(".")
        return column(record[head], rest) if dot and head in record else MISSING
    if isinstance(record, list):
        head, dot, rest = name.partition(".")
        if head.isdecimal() and int(head) < len(record):
            return column(record[int(head)], rest) if dot else record[int(head)]
    return MISSING


@dataclass(frozen=True)
class Reading:
    """What turns a row of a file into a row with Hookline's fields."""

    shape: Shape | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """Hookline's field → the file's column."""
    message: Mapping[str, str] = field(default_factory=dict)
    """`role`, `content` → the key of a message."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """A speaker of the file → a role."""
    chat: bool = False
    """Turn text into messages."""
    system: str | None = None
    """With `chat`: the text of a system message."""
    systems: bool = False
    """Whether rows have a column `system` with a text."""

    @property
    def changes(self) -> str:
        """Everything that this reading does, as text for a hash; empty if it leaves rows as they are."""
        parts = [
            self.shape.name if self.shape else "",
            *(str(sorted(one.items())) if one else "" for one in (self.columns, self.message, self.roles)),
            f"chat {self.system!r}" if self.chat else "",
            "system" if self.systems else "",
        ]
        return "; ".join(filter(None, parts))

    def __call__(self, record: Record, where: str) -> Record | None:
        """The row with Hookline's fields; None for a row that says nothing. Raises DataError for a row of another shape."""
        renamed = self._renamed(record, where)
        found = self.shape.read(renamed, where) if self.shape else renamed
        if found is None:
            return None
        if self.message or self.roles:
            found = {**found, **{name: self._spoken(found[name]) for name in SPOKEN if name in found}}
        if self.chat:
            found = _as_messages(found)
        own = found.get("system") if self.systems else None
        system = own if isinstance(own, str) and own else self.system
        return _instructed(found, system) if system else found

    def _renamed(self, record: Record, where: str) -> Record:
        if not self.columns:
            return record
        values = {name: column(record, source) for name, source in self.columns.items()}
        lost = next((name for name, value in values.items() if value is MISSING), None)
        if lost is not None:
            raise DataError(
                f"{where} has no column '{self.columns[lost]}', which `columns` names for '{lost}'",
                f"the row has: {', '.join(map(str, record)) or 'nothing'}",
            )
        return {**record, **values}

    def _spoken(self, value: Any) -> Any:
        """Messages with the keys `role` and `content`, and with the field's names of roles."""
        if not isinstance(value, list):
            return value
        return [self._message(one) if isinstance(one, Mapping) else one for one in value]

    def _message(self, given: Mapping[str, Any]) -> dict[str, Any]:
        keys = {source: name for name, source in self.message.items()}
        own = {keys.get(name, name): item for name, item in given.items()}
        who = next((name for name in ("role", "from") if name in own), None)
        if who is not None and isinstance(own[who], str):
            own[who] = self.roles.get(own[who], own[who])
        return own


def _as_messages(record: Record) -> Record:
    """Text as messages: the prompt is the user's, answers are the assistant's."""
    roles = {"prompt": "user", "completion": "assistant", "chosen": "assistant", "rejected": "assistant"}
    made = dict(record)
    for name, role in roles.items():
        if isinstance(made.get(name), str):
            made[name] = [{"role": role, "content": made[name]}]
    return made


def _instructed(record: Record, system: str) -> Record:
    """A row whose conversation begins with a system message; a prompt that is text becomes a conversation."""
    made = dict(record)
    if isinstance(made.get("prompt"), str):
        made["prompt"] = [{"role": "user", "content": made["prompt"]}]
    whole = ("messages", "conversations", *(("chosen", "rejected") if made.get("prompt") is None else ()))
    for name in ("prompt", *whole):
        turns: Any = made.get(name)
        if isinstance(turns, list) and turns and speaker(turns[0]) not in ("system", None):
            made[name] = [{"role": "system", "content": system}, *turns]
    return made


def reading_of(first: Sequence[Record], where: str, how: Reads, spec: DataSpec | None = None) -> Reading:
    """How the rows of a source are read, by its first rows. Raises DataError if that is not clear.

    where: the source, for messages; how: what was said about the source; spec: what was said about the data.
    """
    plain = Reading(None, how.columns, how.message, how.roles)
    renamed = [plain._renamed(record, f"{where} row {number}") for number, record in enumerate(first, 1)]
    systems = any(isinstance(row.get("system"), str) and row["system"] for row in renamed)
    chat, system = (spec.chat, spec.system) if spec else (False, None)
    shape = shape_of(renamed, where, None if how.shape == EVENTS else how.shape)
    return replace(plain, shape=shape, chat=chat, system=system, systems=systems)


def prompt_of(record: Record) -> Any:
    """What a row asks: its prompt, the messages before the first answer, or its text. Rows with equal prompts belong together."""
    if record.get("prompt") is not None:
        return record["prompt"]
    named = ("messages", "conversations", "chosen", "rejected")
    whole = next((record[name] for name in named if record.get(name)), None)
    if isinstance(whole, list):
        return list(takewhile(lambda message: speaker(message) != "assistant", whole))
    return record.get("text", whole)
