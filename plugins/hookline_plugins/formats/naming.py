"""Which columns of a free form are the prompt and the answers, and which answer a name such as `helpfulness-2` means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hookline import Candidate, Event

__all__ = ["TEXTS", "About", "about", "answer_of", "label_of", "rest", "time_of"]

PROMPTS = ("prompt", "instruction", "question", "query", "context", "messages", "chat", "conversation", "input", "post")
ANSWERS = re.compile(
    r"(response|answer|completion|candidate|output|generation|generated|reply|summary|text|left|right|option)"
    r"[-_ .]?(\d+|[a-z])?$|[ab]$",
    re.IGNORECASE,
)
LAST = re.compile(r"^(?P<stem>.*?)[-_ .]?(?P<number>\d+|(?<![a-z])[a-h])$", re.IGNORECASE)
SIDES = {"left": 0, "right": 1}
TIES = {"tie": "tie", "both": "tie", "equal": "tie", "same": "tie", "both good": "tie", "neither": "both-bad",
        "both bad": "both-bad", "bothbad": "both-bad", "tie (bothbad)": "both-bad"}  # fmt: skip
TEXTS = ("correct", "edit", "rewrit", "improv", "revis")
"""Parts of the names of questions that ask for a better text."""


@dataclass(frozen=True)
class About:
    """What a form shows: a prompt, and answers with the names of their columns."""

    prompt: Any
    candidates: tuple[Candidate, ...]
    names: tuple[str, ...]
    """The columns of the candidates."""
    asked: str
    """The column of the prompt; empty if there is none."""
    others: dict[str, Any] = field(default_factory=dict)
    """The other columns."""

    def place(self, name: Any) -> int | None:
        """The candidate that a name or its last number or letter means; None if it means none."""
        if name in self.names:
            return self.names.index(name)
        if not isinstance(name, str):
            return None
        if name.lower() in SIDES and len(self.names) == 2:
            return SIDES[name.lower()]
        found = LAST.match(name)
        if not found:
            return None
        number = found["number"]
        low = 0 if number.isdecimal() and any(LAST.sub(r"\g<number>", one) == "0" for one in self.names) else 1
        place = int(number) - low if number.isdecimal() else ord(number.lower()) - ord("a")
        return place if 0 <= place < len(self.names) else None

    def axis(self, question: str) -> str:
        """What a question about one of several answers asks: of `helpfulness-2` it is `helpfulness`."""
        found = LAST.match(question)
        asks = len(self.names) > 1 and question not in self.names and self.place(question) is not None
        return found["stem"] or question if found and asks else question or "overall"

    def of(self, *names: Any) -> int:
        """The one candidate that a question is about. Raises ValueError if none of its names says which."""
        found = next((place for name in names if (place := self.place(name)) is not None), None)
        if found is None and len(self.names) > 1:
            raise ValueError(f"'{names[0]}' does not say which of {', '.join(self.names)} it is about")
        return found or 0


def about(columns: Mapping[str, Any]) -> About:
    """The prompt and the answers among some columns, by their names; without a name that says it, every text is an answer."""
    texts = {name: value for name, value in columns.items() if _text(value)}
    asked = next((name for name in PROMPTS if name in texts), "")
    names = [name for name in texts if name != asked and ANSWERS.match(name)]
    names = names or [name for name in texts if name != asked]
    if not names:
        raise ValueError("it has no column with an answer, such as 'response-1'")
    others = {name: value for name, value in columns.items() if name != asked and name not in names}
    said = tuple(Candidate.of(columns[name]) for name in names)
    return About(columns[asked] if asked else "", said, tuple(names), asked, others)


def _text(value: Any) -> bool:
    spoken = isinstance(value, list) and value and all(isinstance(one, dict) and "content" in one for one in value)
    return isinstance(value, str) or bool(spoken)


def label_of(value: Any, shown: About) -> dict[str, Any] | None:
    """The comparison that a label is, such as `response-2`, `A`, `tie` or `both bad`; None if it is another label."""
    if not isinstance(value, str) or len(shown.names) != 2:
        return None
    word = value.lower().replace("_", " ").replace("-", " ").strip()
    if value not in shown.names and word in TIES:
        return {"kind": "comparison", "better": TIES[word]}
    place = shown.place(value)
    return None if place is None else {"kind": "comparison", "better": place}


def answer_of(event: Event, names: Sequence[str]) -> str:
    """A comparison as a label."""
    better = getattr(event.answer, "better", None)
    return names[better] if isinstance(better, int) else str(better).replace("-", "_")


def rest(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The other columns of a row."""
    return {name: value for name, value in row.items() if name not in names}


def time_of(text: Any) -> float | None:
    """Seconds since 1970 of a time in ISO 8601; None for anything else."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (AttributeError, ValueError):
        return None
