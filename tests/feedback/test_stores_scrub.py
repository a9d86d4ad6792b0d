"""What identifies people: planted data is found before it is stored, ordinary texts stay, and no connection is opened."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hookline
from hookline import Candidate, Comment, Comparison, Correction, Event, Item, Skip, Span, Spans
from hookline_plugins.stores.scrubbing import KINDS, Scrubber

PLANTED = {
    "email": ["joe.public+x@mail.example.org", "ÄRGER@bücher.example", "a_b@sub.domain.co.uk"],
    "phone": ["+49 30 901820", "+1 (415) 555-2671", "(415) 555-2671", "415-555-2671", "+447911123456", "415.555.2671"],
    "card": ["4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005", "6011111111111117"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "FR1420041010050500013M02606"],
    "ip": ["8.8.8.8", "151.101.1.140"],
    "ssn": ["536-22-1234"],
}
ORDINARY = [
    "The answer is 3.14159265358979 or 123456789012.",
    "In 2024-05-17 10:15:30 version 1.2.3 of 10.0.0.1 and 127.0.0.1 listened on port 8080.",
    "1234 5678 9012 3456 is not a card: its check digit is wrong. 0000 0000 0000 0000 has one digit.",
    "Solve 415 + 555 = 970, then 12-34-56. ISBN 978-3-16-148410-0. The year 1999-2000.",
    "def f(x): return x @ y.T  # a[1:2]@b",
    "pages 100-200, room 536-22, DE89 is a road, ABCD1234EFGH5678",
    "3141592653589793 1618033988749894",
    "x = 1764321098765432109",
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in PLANTED.items() for text in texts])
def test_what_is_planted_is_found(kind: str, text: str) -> None:
    for around in ("{}", "call {} now", "({})", "{}, {}", "<{}>", "a: {}\nb", "\t{}."):
        scrub = Scrubber(KINDS)
        assert scrub.text(around.replace("{}", text))[0] == around.replace("{}", f"[{kind}]")
        assert scrub.found == {kind: around.count("{}")}


@given(st.lists(st.sampled_from(["joe@example.org", "8.8.8.8", " and ", "é", "536-22-1234", "."])), st.data())
def test_a_place_outside_of_what_is_replaced_stays_at_its_word(parts: list[str], data: st.DataObject) -> None:
    parts = [f" {part} " for part in parts]
    text, scrub = "".join(parts), Scrubber(KINDS)
    ends = [sum(map(len, parts[:n])) for n in range(len(parts) + 1)]
    at = data.draw(st.sampled_from(ends))
    after, [moved] = scrub.text(text, (at,))
    assert after[:moved] == Scrubber(KINDS).text(text[:at])[0]
    assert after[moved:] == Scrubber(KINDS).text(text[at:])[0]


@pytest.mark.parametrize("text", ORDINARY)
def test_what_is_not_stays(text: str) -> None:
    scrub = Scrubber(KINDS)
    assert (scrub.text(text)[0], dict(scrub.found)) == (text, {})


@pytest.mark.parametrize("part", ["a", "a@", "1", "1-", "+1 ", "DE89 3704 ", "a.", "@a.", "(12) ", "1.1.", "4111 1111 ", "-", "a@b.org "])
def test_the_time_grows_with_the_text_alone(part: str) -> None:
    text = part * (200_000 // len(part)) + "@"
    begun = time.process_time()
    Scrubber(KINDS).text(text)
    assert time.process_time() - begun < 2


def planted(*answers: Any) -> tuple[Item, list[Event]]:
    """An item and events with an address in every text that people and models write."""
    word = "joe@example.org"
    item = Item(
        prompt=({"role": "user", "content": f"I am {word}"},),
        prompt_ids=(1, 2),
        candidates=(Candidate(text=f"Hello {word}", token_ids=(3, 4)), Candidate(text="Hello", token_ids=(5,))),
        record={"question": word, "tags": [word, 3]},
        extra={"note": word},
    )
    spans = Spans(spans=(Span(start=0, end=5, label="greeting"), Span(start=6, end=21, label=word)))
    said = [Correction(text=f"Hi {word}"), Comment(text=f"ask {word}"), Skip(reason=f"{word} again"), spans, *answers]
    return item, [item.event(answer, "ann", id=str(i), extra={"client": word}) for i, answer in enumerate(said)]


def test_nothing_that_was_planted_reaches_a_store(place: Callable[[str], str], tmp_path: Path) -> None:
    item, events = planted(Comparison(better=0))
    for kind in ("jsonl", "sqlite"):
        with hookline.store(place(kind)) as store:
            store.put([item])
            given = store.lease("ann")
            assert given is not None
            store.append(events)
            kept = [given.written(), *(event.written() for event in store.events())]
            assert "joe@" not in str(kept)
            assert (given.prompt_ids, given.candidates[0].token_ids, given.candidates[1].token_ids) == (
                None,
                None,
                (5,),
            )
            assert given.extra == {"note": "[email]", "scrubbed": {"email": 5}}
            assert given.id == item.id
            [*_, spans, _] = store.events()
            marked = [spans.candidates[0].text[one.start : one.end] for one in spans.answer.spans]
            assert marked == ["Hello", "[email]"]
            assert store.put([item]) == store.append(events) == [], "the same again is still the same"
        assert not any(b"joe@example.org" in path.read_bytes() for path in tmp_path.iterdir())


def test_scrubbing_can_be_turned_off_or_limited(place: Callable[[str], str]) -> None:
    item = Item(prompt="joe@example.org, 8.8.8.8", candidates=(Candidate(text="x"),))
    for scrub, prompt in {(): item.prompt, ("ip",): "joe@example.org, [ip]"}.items():
        with hookline.store(place("jsonl"), scrub=scrub) as store:
            store.put([item])
            assert [one.prompt for one in store.items()] == [prompt]
    with pytest.raises(hookline.DataError, match=r"scrub.0: Input should be 'email', 'phone'"):
        hookline.store(place("jsonl"), scrub=("names",))


_opened: list[str] = []
sys.addaudithook(lambda event, _: _opened.append(event) if event.startswith("socket.") else None)


def test_no_connection_is_opened(place: Callable[[str], str]) -> None:
    item, events = planted()
    before = len(_opened)
    for kind in ("jsonl", "sqlite"):
        with hookline.store(place(kind)) as store, hookline.store(place("sqlite")) as copy:
            store.put([item])
            store.append(events)
            store.copy_to(copy)
            store.forget("ann")
            store.verify()
    assert _opened[before:] == []
