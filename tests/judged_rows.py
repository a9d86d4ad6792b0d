"""Rows of event formats, read and written without a file, and strategies for what such rows hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from hookline import Event, Format, Record
from hookline.contract.event_format import EventFormat
from hookline.files.formats import event_formats

TEXT = st.sampled_from(
    ["", " ", "a", " a", "A", "Tie.", "both bad", "1", "-2", "true", "null", "[]", '{"a": 1}', '"', "a,b", "a\nb", "\r\n", "\n\nHuman: a",
     "é", "e\u0301", "\u2028", "\U0001f300", "\x00", "response-1"]
)  # fmt: skip
NAME = st.sampled_from("abc abd acd b9 x xy xyz zz gpt-4 llama-2 é m_1 q1 q2 q3".split())
"""Texts and names that are easily taken for something else; `st.text` takes ten times as long."""


class Memory(Format):
    """Rows that are already there, and those that were written."""

    def __init__(self, rows: Iterable[Record]) -> None:
        super().__init__(self.Config())
        self.given, self.written = list(rows), []

    def read(self, path: Path) -> Iterator[Record]:
        yield from self.given

    def write(self, path: Path, rows: Iterable[Record]) -> int:
        self.written = list(rows)
        return len(self.written)


def form(name: str) -> EventFormat:
    [found] = [one for one in event_formats() if one.instance == name]
    return found


def _with(name: str, memory: Memory) -> EventFormat:
    offered = form(name)
    own = type(offered)(offered.config)
    own.instance, own.container = name, lambda path: memory
    return own


def events(name: str, *rows: Record) -> list[Event]:
    return [Event.read(row, "here") for row in _with(name, Memory(rows)).read(Path("rows.jsonl"))]


def written(name: str, events: Iterable[Event]) -> list[Any]:
    memory = Memory(())
    _with(name, memory).write(Path("rows.jsonl"), [event.written() for event in events])
    return memory.written


def again(name: str, *rows: Record) -> list[Any]:
    """Rows as they are after they were read as events and written."""
    return written(name, events(name, *rows))


def turns(*said: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]


def dialogue(draw: st.DrawFn) -> list[dict[str, str]]:
    pairs = draw(st.lists(st.tuples(TEXT, TEXT), max_size=2))
    return turns(*(text for pair in pairs for text in pair), draw(TEXT))


def some(**columns: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with these keys, of which each may be missing."""
    return st.fixed_dictionaries({}, optional=columns)
