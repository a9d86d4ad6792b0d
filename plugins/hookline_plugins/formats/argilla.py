"""Argilla's records, as `to_list` and `to_json` write them, and the flattened columns of `to_list(flatten=True)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hookline import Comment, Comparison, Correction, Event, EventFormat, Ranking, Rating, Record, Skip, Spans, Thumb
from hookline_plugins.formats.naming import TEXTS, About, about, answer_of, label_of, rest

__all__ = ["Argilla", "ArgillaColumns"]

LOW, HIGH = 0, 10
"""Argilla's ratings lie between these; a record does not say the scale of its question."""
DISCARDED, DRAFT, SUBMITTED = "discarded", "draft", "submitted"
LIKED = {True: "good", False: "bad"}
PLACES = ".responses", ".responses.users", ".responses.status", ".suggestion", ".suggestion.score", ".suggestion.agent"
PARTS = ("id", "status", "fields", "metadata", "suggestions", "responses", "vectors")


class Argilla(EventFormat):
    """Argilla's records: `fields`, `responses` and `suggestions` of questions.

    A ranking, a label that names an answer (or `tie`, `both bad`), a rating, marked spans, a text of a question that asks for
    a correction, and any other value as a comment. Suggestions are answers of a model. Discarded answers and drafts are skips.
    """

    columns = {"fields": dict}
    holds = frozenset({"comparison", "ranking", "rating", "correction", "thumb", "spans", "comment", "skip"})

    def fits(self, row: Record) -> bool:
        return super().fits(row) and any(isinstance(row.get(name), dict) for name in ("responses", "suggestions"))

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        shown = about(row["fields"])
        record = rest(row, "id", "fields", "responses", "suggestions")
        if (shown.asked, shown.names) != _names(len(shown.names)):
            record["names"] = [shown.asked, *shown.names]
        if shown.others:
            record["fields"] = shown.others
        item = {"prompt": shown.prompt, "candidates": shown.candidates, "record": record}
        if "id" in row:
            item["item"] = str(row["id"])
        for question, given in (row.get("responses") or {}).items():
            for one in given:
                made = _answered(question, one, shown)
                yield {**item, **made, "annotator": str(one.get("user_id") or "unknown")}
        for question, one in (row.get("suggestions") or {}).items():
            made = _answered(question, {"status": SUBMITTED, **one}, shown)
            made["extra"] |= rest(one, "value", "agent")
            yield {**item, **made, "annotator": str(one.get("agent") or "suggestion"), "role": "model"}

    def key(self, event: Event) -> Any:
        return event.item

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        foreign = {"metadata": events[0].record} if events[0].record else {}
        record = dict(events[0].record) if events[0].source == self.instance else foreign
        asked, *names = record.pop("names", None) or [*_flat(_names(len(events[0].candidates)))]
        prompt = {asked: events[0].prompt} if asked else {}
        spoken = {name: one.said(as_messages=False) for name, one in zip(names, events[0].candidates)}
        responses: dict[str, list[Any]] = {}
        suggestions: dict[str, Any] = {}
        for event in events:
            for question, value in _asked(event, names):
                extra = rest(event.extra, "question", "value", "status")
                if event.role == "model":
                    agent = {} if event.annotator == "suggestion" else {"agent": event.annotator}
                    suggestions[question] = {"value": value, **extra, **agent}
                else:
                    who = {} if event.annotator == "unknown" else {"user_id": event.annotator}
                    status = event.extra.get("status", DISCARDED if isinstance(event.answer, Skip) else SUBMITTED)
                    responses.setdefault(question, []).append({"value": value, **who, "status": status})
        fields = {**prompt, **spoken, **record.pop("fields", {})}
        yield {"id": events[0].item, "fields": fields, "responses": responses, "suggestions": suggestions, **record}


class ArgillaColumns(Argilla):
    """Argilla's records with a column for each field, metadata and part of a question, e.g. `ranking.responses.users`.

    Metadata whose name is also a field's are written as `metadata.NAME`.
    """

    columns = {}

    def fits(self, row: Record) -> bool:
        return any(
            isinstance(row.get(f"{name}.responses.users"), list) or f"{name}.suggestion" in row for name in _stems(row)
        )

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        yield from super().events([_deep(rows[0])])

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        for row in super().rows(events):
            made = {**rest(row, *PARTS), "id": row["id"], **row["fields"]}
            made |= {"status": row["status"]} if "status" in row else {}
            for part in ("metadata", "vectors"):
                for name, value in (row.get(part) or {}).items():
                    plain = part == "metadata" and name not in made and name not in PARTS and name not in row["fields"]
                    made[name if plain and not _is_field(name) else f"{part}.{name}"] = value
            for question, given in row["responses"].items():
                made[f"{question}.responses"] = [one["value"] for one in given]
                made[f"{question}.responses.users"] = [one.get("user_id") for one in given]
                made[f"{question}.responses.status"] = [one["status"] for one in given]
            for question, one in row["suggestions"].items():
                made[f"{question}.suggestion"] = one["value"]
                made |= {f"{question}.suggestion.{part}": one[part] for part in ("score", "agent") if part in one}
            yield made


def _names(count: int) -> tuple[str, tuple[str, ...]]:
    """The names of fields where events do not say them."""
    return "prompt", tuple(f"response-{i}" for i in range(1, count + 1)) if count > 1 else ("response",)


def _flat(names: tuple[str, tuple[str, ...]]) -> Iterator[str]:
    yield names[0]
    yield from names[1]


# -- one answer to one question


def _answered(question: str, given: Mapping[str, Any], shown: About) -> dict[str, Any]:
    value, status = given.get("value"), given.get("status", SUBMITTED)
    extra: dict[str, Any] = {"question": question}
    if status != SUBMITTED:
        extra |= {"status": status, **({"value": value} if value is not None else {})}
        return {"answer": {"kind": "skip", "reason": status}, "extra": extra}
    answer = _said(question, value, shown)
    made = {"answer": answer, "extra": extra}
    event = Event.read(
        {"prompt": "", "candidates": shown.candidates, "annotator": "-", **made}, f"the answer to '{question}'"
    )
    if isinstance(event.answer, Skip):
        extra |= {"value": value, "status": status}
    elif list(_asked(event, shown.names)) != [(question, value)]:
        extra["value"] = value
    return made


def _said(question: str, value: Any, shown: About) -> dict[str, Any]:
    """What an answer to a question says."""
    compared = label_of(value, shown)
    if compared:
        return compared
    if (
        isinstance(value, str)
        and value in LIKED.values()
        and (len(shown.names) == 1 or shown.place(question) is not None)
    ):
        return {"kind": "thumb", "of": shown.of(question), "up": value == LIKED[True]}
    if isinstance(value, str) and any(word in question.lower() for word in TEXTS):
        return {"kind": "correction", "of": shown.of(question), "text": value}
    if isinstance(value, int) and not isinstance(value, bool) and _about_one(question, shown):
        return {
            "kind": "rating",
            "of": shown.of(question),
            "marks": {shown.axis(question): value},
            "low": LOW,
            "high": HIGH,
        }
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        if all("rank" in one and shown.place(one.get("value")) is not None for one in value):
            order = _order(value, shown)
            return {"kind": "ranking", "order": order} if order else {"kind": "skip", "reason": "nothing is ranked"}
        if all({"start", "end", "label"} <= one.keys() for one in value) and _about_one(question, shown):
            spans = [{name: one[name] for name in ("start", "end", "label")} for one in value]
            return {"kind": "spans", "of": shown.of(question), "spans": spans}
    text = value if isinstance(value, str) else ", ".join(map(str, _listed(value)))
    return {"kind": "comment", "of": shown.place(question), "text": text}


def _about_one(question: str, shown: About) -> bool:
    return len(shown.names) == 1 or shown.place(question) is not None


def _order(value: Sequence[Mapping[str, Any]], shown: About) -> list[list[int]]:
    ranks: dict[int, list[int]] = {}
    for one in value:
        if one["rank"] is not None:
            ranks.setdefault(int(one["rank"]), []).append(shown.place(one["value"]) or 0)
    return [ranks[rank] for rank in sorted(ranks)]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _asked(event: Event, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The questions that an event answers, with the values of the answers."""
    answer, extra = event.answer, event.extra
    place: int | None = getattr(answer, "of", None)
    several = len(names) > 1 or isinstance(answer, Comment)
    number = f"-{place + 1}" if several and place is not None else ""
    if "value" in extra or isinstance(answer, Skip):
        yield extra.get("question", "preference"), extra.get("value")
    elif isinstance(answer, Rating):
        for axis, mark in answer.marks.items():
            if mark != int(mark) or not LOW <= mark <= HIGH:
                raise ValueError(f"marks are whole numbers from {LOW} to {HIGH}, and '{axis}' is {mark:g}")
            yield extra.get("question", f"{axis}{number}"), int(mark)
    elif isinstance(answer, Comparison):
        yield extra.get("question", "preference"), answer_of(event, names)
    elif isinstance(answer, Ranking):
        places = [(i, 1 + sum(map(len, answer.order[:rank]))) for rank, group in enumerate(answer.order) for i in group]
        yield extra.get("question", "ranking"), [{"value": names[i], "rank": rank} for i, rank in places]
    elif isinstance(answer, Correction):
        yield extra.get("question", f"correction{number}"), answer.text
    elif isinstance(answer, Thumb):
        yield extra.get("question", f"thumb{number}"), LIKED[answer.up]
    elif isinstance(answer, Spans):
        spans = [{"start": one.start, "end": one.end, "label": one.label} for one in answer.spans]
        yield extra.get("question", f"spans{number}"), spans
    else:
        yield extra.get("question", f"comment{number}"), answer.text


# -- flattened columns


def _stems(row: Record) -> list[str]:
    """The questions of a flattened record."""
    ends = (".responses", ".suggestion")
    return list(dict.fromkeys(name.removesuffix(end) for name in row for end in ends if name.endswith(end)))


def _is_field(name: str) -> bool:
    try:
        shown = about({name: "", "response-0": ""})
    except ValueError:
        return False
    return name == shown.asked or name in shown.names


def _deep(row: Record) -> Record:
    """A flattened record as it was before."""
    stems = _stems(row)
    responses, suggestions = {}, {}
    for question in stems:
        given = row.get(f"{question}.responses")
        if given:
            users, states = (
                row.get(f"{question}.responses.{part}") or [None] * len(given) for part in ("users", "status")
            )
            if not len(given) == len(users) == len(states):
                raise ValueError(f"'{question}.responses' and its users and status have different lengths")
            responses[question] = [
                {"value": value, **({"user_id": user} if user else {}), "status": state or SUBMITTED}
                for value, user, state in zip(given, users, states)
            ]
        if row.get(f"{question}.suggestion") is not None:
            more = {part: row.get(f"{question}.suggestion.{part}") for part in ("score", "agent")}
            known = {part: value for part, value in more.items() if value is not None}
            suggestions[question] = {"value": row[f"{question}.suggestion"], **known}
    own = rest(row, *(f"{question}{place}" for question in stems for place in PLACES))
    known = {name: own.pop(name) for name in ("id", "status") if name in own}
    parts: dict[str, dict[str, Any]] = {"metadata": {}, "vectors": {}, "fields": {}}
    for name, value in own.items():
        part, dot, inner = name.partition(".")
        if dot and part in ("metadata", "vectors"):
            parts[part][inner] = value
        else:
            parts["fields" if _is_field(name) else "metadata"][name] = value
    kept = {part: value for part, value in parts.items() if value}
    return {**known, **kept, "responses": responses, "suggestions": suggestions}
