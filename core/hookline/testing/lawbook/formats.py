"""Laws for formats: a file's rows are the same at every reading, an unreadable file raises a DataError, and events that are
written are read again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from hookline.batch.stages import Record
from hookline.contract.event_format import EventFormat
from hookline.contract.feedback import (
    Candidate,
    Comment,
    Comparison,
    Correction,
    Event,
    Ranking,
    Rating,
    Skip,
    Span,
    Spans,
    Thumb,
)
from hookline.contract.format import Format
from hookline.data.rows import digest
from hookline.errors import DataError, cause
from hookline.files.formats import contained, needed
from hookline.testing.lawbook.apart import made
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law
from hookline.testing.surroundings import own_rows


def examples() -> Iterator[str]:
    """Files of the plain formats, as text."""
    rows = [{key: row[key] for key in ("prompt", "completion")} for row in own_rows()[:5]]
    yield "".join(json.dumps(row) + "\n" for row in rows)
    yield json.dumps(rows)
    for comma in (",", "\t"):
        yield "".join(comma.join(line) + "\n" for line in ([*rows[0]], *([*row.values()] for row in rows)))
    yield "\n".join(row["prompt"] for row in rows) + "\n"
    yield "\n".join(f"{key}: {value}" for row in rows for key, value in row.items()) + "\n"


def suffix_of(component: Format) -> str:
    return next(iter(component.suffixes), ".jsonl" if isinstance(component, EventFormat) else ".txt")


def form(subject: Subject) -> Format:
    component = made(subject)
    assert isinstance(component, Format)
    if isinstance(component, EventFormat):
        component.container = contained
    return component


def read(subject: Subject, path: Path) -> tuple[Record, ...]:
    return tuple(form(subject).read(path))


def judged() -> Iterator[Event]:
    """An event of every kind of answer, about two candidates and about the first alone."""
    pair = (Candidate(text="yes, it is"), Candidate(text="no"))
    answers = (
        *(Comparison(better=better) for better in (0, 1, "tie", "both-bad")),
        Ranking(order=((1,), (0,))),
        Ranking(order=((0, 1),)),
        *(Rating(of=of, marks={"overall": 2}) for of in (0, 1)),
        Correction(of=1, text="yes"),
        *(Thumb(of=of, up=up) for of in (0, 1) for up in (True, False)),
        Spans(of=0, spans=(Span(start=0, end=3, label="wrong"),)),
        Comment(of=0, text="short"),
        Skip(reason="unclear"),
    )
    for answer in answers:
        for candidates in (pair, pair[:1]):
            if candidates is pair or not (isinstance(answer, Comparison | Ranking) or getattr(answer, "of", 0) > 0):
                yield Event(prompt="Is it?", candidates=candidates, answer=answer, annotator="7", item="12")


def said(event: Event) -> object:
    """What an event says of which texts, without its scale, strength and reason, which not every format holds."""
    texts = [one.text for one in event.candidates] + [getattr(event.answer, "text", "")]
    levels = event.levels()
    if levels is not None:
        return sorted((texts[i], level) for i, level in levels.items())
    of = getattr(event.answer, "of", None)
    said = event.answer.model_dump(exclude={"of", "low", "high", "step", "strength", "reason"})
    return said, None if of is None else texts[of]


@law("format", alone=True)
def suffixes(subject: Subject) -> str | None:
    """The format lists the file name suffixes that it reads: a dot, then lower-case letters, digits, - or _."""
    component = form(subject)
    wrong = [s for s in component.suffixes if not re.fullmatch(r"(\.[a-z0-9_-]+)+", s)]
    if isinstance(component.suffixes, str) or wrong:
        raise Broken(f'suffixes is {component.suffixes!r}; write them like (".csv", ".tsv")')
    if not component.suffixes:
        raise NotApplicable("the format has no suffix; data names use `NAME:FILE`")
    return ", ".join(component.suffixes)


@law("format", alone=True)
def defaults(subject: Subject) -> str | None:
    """Every option has a default, because a data name cannot set options."""
    required = needed(subject.cls)
    if required:
        raise Broken(f"give '{required[0]}' a default: a format is read with its defaults")
    return None


@law("format", alone=True)
def reads_alike(subject: Subject) -> str | None:
    """A file's rows are mappings with text keys, and are the same at every reading, by number and in every instance."""
    component = form(subject)
    path, found = subject.folder / f"example{suffix_of(component)}", 0
    for text in examples():
        path.write_text(text, encoding="utf-8")
        try:
            first, again = tuple(component.read(path)), tuple(component.read(path))
        except DataError:
            continue
        if not all(isinstance(row, dict) and all(isinstance(key, str) for key in row) for row in first):
            raise Broken("some rows are not dicts with text keys")
        if digest(first) != digest(again) or digest(first) != digest(read(subject, path)):
            raise Broken("the rows differ at the second reading")
        numbered = component.open(path)
        if digest(numbered) != digest(first) or digest(numbered[i] for i in range(len(numbered))) != digest(first):
            raise Broken("`open` gives other rows than `read`")
        found += 1
    if not found:
        raise NotApplicable("the format reads none of the plain files tested here")
    return f"{found} files"


@law("format", alone=True)
def refuses(subject: Subject) -> str | None:
    """A file that cannot be read raises a DataError that names the file, and no other exception."""
    component = form(subject)
    path = subject.folder / f"odd{suffix_of(component)}"
    for what, content in (("no text", b"\xff\xfe\x00\x01{"), ("half a file", b'{"prompt": "a'), ("nothing", b"")):
        path.write_bytes(content)
        try:
            tuple(component.read(path))
        except DataError as err:
            if path.name not in str(err):
                raise Broken(f"a file with {what}: '{err.message}' does not name the file") from None
        except Exception as err:
            raise Broken(f"a file with {what} raises {cause(err)}") from None
    return None


@law("format", alone=True)
def writes_what_it_reads(subject: Subject) -> str | None:
    """An event that was written is read again with the same answer about the same texts; what cannot be held is a DataError."""
    component = form(subject)
    if not isinstance(component, EventFormat) or not component.holds:
        raise NotApplicable("the format does not write events")
    kinds = set()
    for number, event in enumerate(judged()):
        path = subject.folder / f"event{number}{suffix_of(component)}"
        try:
            component.write(path, [event.written()])
        except DataError as err:
            if path.name not in str(err):
                raise Broken(f"the refusal '{err.message}' does not name the file") from None
            continue
        back = [Event.read(row, "the event") for row in component.read(path)]
        if [said(one) for one in back] != [said(event)]:
            shown = ", ".join(str(one.answer) for one in back) or "nothing"
            raise Broken(f"the answer {event.answer} is read again as {shown}")
        kinds.add(event.answer.kind)
    if not kinds:
        raise NotApplicable("the format writes none of the events tested here")
    return ", ".join(sorted(kinds))
