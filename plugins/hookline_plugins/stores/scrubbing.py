"""Replaces what identifies people in texts: e-mail addresses, telephone numbers, cards, bank accounts, IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from hookline import Event, Item

ThingT = TypeVar("ThingT", Item, Event)

Kind = Literal["email", "phone", "card", "iban", "ip", "ssn"]


def _card(text: str) -> bool:
    """Whether digits are those of a payment card: they begin as those of an issuer do, and their check digit is right (Luhn)."""
    digits = [int(one) for one in text if one.isdigit()]
    doubled = [sum(divmod(2 * one, 10)) for one in digits[-2::-2]]
    issued = re.match(r"4|5[1-5]|2[2-7]|3[4-8]|30|6(?:011|4|5|2)", "".join(map(str, digits)))
    return bool(issued) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _iban(text: str) -> bool:
    plain = re.sub(r"\s", "", text).upper()
    return 15 <= len(plain) <= 34 and int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1


def _ip(text: str) -> bool:
    """Whether an address is somebody's: not of a private network or this machine."""
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _any(text: str) -> bool:
    return True


def _phone(text: str) -> bool:
    return 7 <= sum(one.isdigit() for one in text) <= 15


PATTERNS: dict[Kind, tuple[str, Callable[[str], bool]]] = {
    "email": (r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}\.[^\W\d_]{2,63}", _any),
    "iban": (r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", _iban),
    "card": (r"(?<![\w.])\d(?:[ -]?\d){12,15}(?![\w]|\.\d)", _card),
    "ssn": (r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])", _any),
    "ip": (r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]\d|\d)", _ip),
    "phone": (r"(?<![\w+])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){5,12}"
              r"|\(\d{2,5}\)[ .-]?\d{3,4}[ .-]?\d{3,5}|\d{3}[-.]\d{3}[-.]\d{4})(?!\d)", _phone),
}  # fmt: skip
"""What is looked for, in this order, and whether what was found is one.

Each pattern has an end, so that the time grows with the text alone.
"""
KINDS: tuple[Kind, ...] = tuple(PATTERNS)
NEEDED = re.compile(r"@|[A-Z]{2}\d\d|\d(?:\W{0,3}\d){3}")
"""What a text has that holds any of them: most texts hold none, and are searched once."""


def _moved(at: int, replaced: Sequence[tuple[int, int]], length: int) -> int:
    """Where a place of a text is after parts of it were replaced, each by so many code points; within a part: behind it."""
    gone = sum(end - start - length for start, end in replaced if end <= at)
    within = next((start + length - at for start, end in replaced if start < at < end), 0)
    return at - gone + within


class Scrubber:
    """Replaces what identifies people, and counts it."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._kinds = [kind for kind in PATTERNS if kind in kinds]
        self.found: Counter[str] = Counter()
        """Kind → how many were replaced."""

    def text(self, text: str, marks: Sequence[int] = ()) -> tuple[str, list[int]]:
        """The text after it was scrubbed, and where code points of the old text are in the new one."""
        moved = list(marks)
        if not NEEDED.search(text):
            return text, moved
        for kind in self._kinds:
            pattern, true = PATTERNS[kind]
            found = [m.span() for m in re.finditer(pattern, text) if true(m[0])]
            ends = [0, *(end for _, end in found), len(text)]
            between = [text[end:start] for end, (start, _) in zip(ends, [*found, (len(text), 0)])]
            text = f"[{kind}]".join(between)
            moved = [_moved(at, found, len(kind) + 2) for at in moved]
            if found:
                self.found[kind] += len(found)
        return text, moved

    def any(self, value: Any) -> Any:
        """JSON with every text in it scrubbed; keys stay as they are."""
        if isinstance(value, str):
            return self.text(value)[0]
        if isinstance(value, dict):
            return {key: self.any(one) for key, one in value.items()}
        return [self.any(one) for one in value] if isinstance(value, list | tuple) else value

    def candidates(self, written: Sequence[dict[str, Any]]) -> None:
        """Scrub candidates, given as JSON; one whose text changes loses its tokens, which say the same."""
        for one in written:
            before, one["text"] = one["text"], self.text(one["text"])[0]
            if one["text"] != before:
                one.pop("token_ids", None)


def scrubbed_item(item: Item, kinds: Sequence[Kind]) -> tuple[Item, dict[str, Any]]:
    """The item without what identifies people, and as JSON; `extra` says in `scrubbed` how much was replaced. Its id stays."""
    scrub, written = Scrubber(kinds), item.written()
    _scrub_question(scrub, written)
    return _noted(item, written, scrub)


def scrubbed_event(event: Event, kinds: Sequence[Kind]) -> tuple[Event, dict[str, Any]]:
    """The event without what identifies people, what the annotator typed included, and as JSON. Its ids stay."""
    scrub, written = Scrubber(kinds), event.written()
    _scrub_question(scrub, written)
    for name in ("answer", "expected"):
        answer = written.get(name)
        if answer and answer["kind"] == "spans":
            text = event.candidates[answer.get("of", 0)].text
            for span in answer["spans"]:
                _, (span["start"], span["end"]) = Scrubber(kinds).text(text, (span["start"], span["end"]))
                span["start"] = min(span["start"], span["end"] - 1)
                span["label"] = scrub.text(span["label"])[0]
        elif answer:
            written[name] = {
                key: scrub.any(value) if key in ("text", "reason") else value for key, value in answer.items()
            }
    return _noted(event, written, scrub)


def _scrub_question(scrub: Scrubber, written: dict[str, Any]) -> None:
    """The parts that an item and an event share."""
    before = written["prompt"]
    written["prompt"] = scrub.any(before)
    if written["prompt"] != before:
        written.pop("prompt_ids", None)
    scrub.candidates(written["candidates"])
    for name in ("record", "extra"):
        if name in written:
            written[name] = scrub.any(written[name])


def _noted(thing: ThingT, written: dict[str, Any], scrub: Scrubber) -> tuple[ThingT, dict[str, Any]]:
    """What is stored: the thing itself where nothing was replaced."""
    if not scrub.found:
        return thing, written
    noted = {**written.get("extra", {}), "scrubbed": dict(sorted(scrub.found.items()))}
    made = type(thing).model_validate({**written, "extra": noted})
    return made, made.written()
