"""Battles of two models: Chatbot Arena's 33 000 conversations, its 140 000 of 2025, and the human judgements of MT-bench."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from hookline import Candidate, Comparison, Event, EventFormat, Record
from hookline_plugins.formats.naming import rest

__all__ = ["Arena", "Arena140k", "MTBench"]

FIRST, SECOND = "model_a", "model_b"
CONVERSATIONS = ("conversation_a", "conversation_b")


class Battle(EventFormat):
    """Two conversations that begin alike, and which model's is better."""

    holds = frozenset({"comparison"})
    both_bad: ClassVar[str] = "tie (bothbad)"
    """The word for two bad answers."""
    columns = {FIRST: str, SECOND: str, "winner": str, "conversation_a": list, "conversation_b": list}

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        prompt, rests = self.apart(self.conversations(row))
        words = {FIRST: 0, SECOND: 1, "tie": "tie", self.both_bad: "both-bad"}
        if row["winner"] not in words:
            raise ValueError(f"the winner is '{row['winner']}', not {', '.join(words)}")
        yield {
            "prompt": prompt,
            "candidates": [Candidate.of(said, by=row[name]) for said, name in zip(rests, (FIRST, SECOND))],
            "answer": {"kind": "comparison", "better": words[row["winner"]]},
            **self.told(row),
        }

    @abstractmethod
    def told(self, row: Record) -> dict[str, Any]:
        """Who judged, and what else the row says."""

    @abstractmethod
    def more(self, event: Event) -> dict[str, Any]:
        """The columns for what `told` reads."""

    def conversations(self, row: Record) -> list[list[Any]]:
        """The two conversations, as far as they were judged."""
        return [row[name] for name in CONVERSATIONS]

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        if len(event.candidates) != 2:
            raise ValueError(f"a battle is of two answers, and there are {len(event.candidates)}")
        assert isinstance(event.answer, Comparison)
        better = event.answer.better
        models = [one.by.name if one.by else f"unknown-{i}" for i, one in enumerate(event.candidates, 1)]
        yield {
            **event.record,
            FIRST: models[0],
            SECOND: models[1],
            "winner": (FIRST, SECOND)[better]
            if isinstance(better, int)
            else "tie"
            if better == "tie"
            else self.both_bad,
            **_whole(event),
            **self.more(event),
        }


def _asked(event: Event) -> list[Any]:
    return [{"role": "user", "content": event.prompt}] if isinstance(event.prompt, str) else list(event.prompt)


def _whole(event: Event) -> dict[str, list[Any]]:
    """The two conversations of an event."""
    return {name: [*_asked(event), *one.said(as_messages=True)] for name, one in zip(CONVERSATIONS, event.candidates)}


class Arena(Battle):
    """Chatbot Arena's conversations of 2023: `winner` is `model_a`, `model_b`, `tie` or `tie (bothbad)`.

    Battles whose models were known to the judge have `anony` false: `filter: {record.anony: true}` leaves them out.
    """

    columns = {**Battle.columns, "judge": str, "anony": bool}

    def told(self, row: Record) -> dict[str, Any]:
        when = {"submitted_at": row["tstamp"]} if "tstamp" in row else {}
        return {"annotator": row["judge"], "record": rest(row, *Battle.columns, "judge", "tstamp"), **when}

    def more(self, event: Event) -> dict[str, Any]:
        when = {} if event.submitted_at is None else {"tstamp": event.submitted_at}
        return {"judge": event.annotator, "anony": event.record.get("anony", True), **when}


class Arena140k(Battle):
    """Arena's conversations of 2025: contents in parts, `both_bad`, and figures about style in `conv_metadata`."""

    columns = {**Battle.columns, "id": str, "evaluation_session_id": str}
    both_bad = "both_bad"

    def conversations(self, row: Record) -> list[list[Any]]:
        return [[_joined(turn) for turn in row[name]] for name in CONVERSATIONS]

    def told(self, row: Record) -> dict[str, Any]:
        return {
            "annotator": row["evaluation_session_id"],
            "id": f"arena/{row['id']}",
            "record": rest(row, *self.columns),
        }

    def more(self, event: Event) -> dict[str, Any]:
        parts = {name: [_parted(turn) for turn in turns] for name, turns in _whole(event).items()}
        return {"id": event.id.removeprefix("arena/"), "evaluation_session_id": event.annotator, **parts}


def _joined(turn: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message whose content is one part of text, with that text as content."""
    content = turn["content"]
    plain = isinstance(content, list) and len(content) == 1 and content[0].get("type") == "text"
    if plain and not any(value for name, value in content[0].items() if name not in ("type", "text")):
        return {**turn, "content": content[0]["text"]}
    return turn


def _parted(turn: Mapping[str, Any]) -> Mapping[str, Any]:
    content = turn["content"]
    return {**turn, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else turn


class MTBench(Battle):
    """Human judgements of MT-bench: `turn` says after which turn of the conversation the judge compared."""

    columns = {**Battle.columns, "judge": (str, list), "turn": int, "question_id": int}

    def fits(self, row: Record) -> bool:
        return super().fits(row) and "anony" not in row

    def conversations(self, row: Record) -> list[list[Any]]:
        return [row[name][: 2 * row["turn"]] for name in CONVERSATIONS]

    def told(self, row: Record) -> dict[str, Any]:
        after = {name: row[name][2 * row["turn"] :] for name in CONVERSATIONS if row[name][2 * row["turn"] :]}
        who = row["judge"]
        asked = {"role": "model", "annotator": "/".join(map(str, who))} if isinstance(who, list) else {"annotator": who}
        extra = {**({"after": after} if after else {}), **({"judge": who} if isinstance(who, list) else {})}
        return {**asked, "extra": extra, "record": rest(row, *Battle.columns, "judge")}

    def more(self, event: Event) -> dict[str, Any]:
        after = event.extra.get("after", {})
        said = {name: [*turns, *after.get(name, ())] for name, turns in _whole(event).items()}
        turn = sum(one.get("role") == "user" for one in next(iter(_whole(event).values())))
        known = {"question_id": event.record.get("question_id", 0), "turn": event.record.get("turn", turn)}
        return {**known, "judge": event.extra.get("judge", event.annotator), **said}
