"""How the rows of one source become rows with Hookline's fields: its columns, its shape, its speakers, text as messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hookline.batch.stages import Record
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
        found: Record | None = self._renamed(record, where)
        if found is not None and self.shape:
            found = self.shape.read(found, where)
        if found is not None and (self.message or self.roles):
            found = {**found, **{name: self._spoken(found[name]) for name in SPOKEN if name in found}}
        if found is not None and self.chat:
            found = self._messages(found)
        own = found.get("system") if found is not None and self.systems else None
        return _instructed(found, own) if found is not None and isinstance(own, str) and own else found

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

    def _messages(self, record: Record) -> Record:
        """Text as messages: the prompt is the user's, answers are the assistant's."""
        made = dict(record)
        for name in ("completion", "chosen", "rejected"):
            if isinstance(made.get(name), str):
                made[name] = [{"role": "assistant", "content": made[name]}]
        if isinstance(made.get("prompt"), str):
            made["prompt"] = [{"role": "user", "content": made["prompt"]}]
        own = self.systems and isinstance(record.get("system"), str) and record["system"]  # the row's own text is put there later
        return _instructed(made, self.system) if self.system is not None and not own else made


def _instructed(record: Record, system: str) -> Record:
    """A row whose conversation begins with a system message; a prompt that is text becomes a conversation."""
    made = dict(record)
    if isinstance(made.get("prompt"), str):
        made["prompt"] = [{"role": "user", "content": made["prompt"]}]
    whole = ("messages", "conversations", *(("chosen", "rejected") if made.get("prompt") is None else ()))
    for name in ("prompt", *whole):
        turns: Any = made.get(name)
        first = turns[0] if isinstance(turns, list) and turns else None
        if isinstance(first, Mapping) and first.get("role", first.get("from")) != "system":
            made[name] = [{"role": "system", "content": system}, *turns]
    return made


def reading_of(
    first: Sequence[Record],
    where: str,
    *,
    shape: str | None = None,
    columns: Mapping[str, str] | None = None,
    message: Mapping[str, str] | None = None,
    roles: Mapping[str, str] | None = None,
    chat: bool = False,
    system: str | None = None,
) -> Reading:
    """How the rows of a source are read, by its first rows. Raises DataError if that is not clear.

    where: the source, for messages; the rest: as in the section `data` of an experiment.
    """
    plain = Reading(None, columns or {}, message or {}, roles or {}, chat, system)
    renamed = [plain._renamed(record, f"{where} row {number}") for number, record in enumerate(first, 1)]
    found = shape_of(renamed, where, shape)
    fields = {name for row in renamed for name in row} | set(found.gives if found else ())
    systems = any(isinstance(row.get("system"), str) and row["system"] for row in renamed) and bool(fields & {*SPOKEN})
    return Reading(found, plain.columns, plain.message, plain.roles, chat, system, systems)


def prompt_of(record: Record) -> Any:
    """What a row asks: its prompt, the messages before the first answer, or its text. Rows with equal prompts belong together."""
    if record.get("prompt") is not None:
        return record["prompt"]
    both = [record.get(name) for name in ("chosen", "rejected")]
    whole = next((record[name] for name in ("messages", "conversations") if record.get(name)), both[0])
    if isinstance(whole, list):
        said = ("assistant", "gpt")
        answers = [
            at for at, one in enumerate(whole) if isinstance(one, Mapping) and one.get("role", one.get("from")) in said
        ]
        return whole[: answers[0]] if answers else whole
    return record.get("text", whole)
