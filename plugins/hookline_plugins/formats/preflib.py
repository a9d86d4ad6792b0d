"""PrefLib's files of orders: strict and complete (.soc), strict and incomplete (.soi), with ties (.toc, .toi)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hookline import DataError, Event, Format, Ranking, Record

__all__ = ["PrefLib"]

ABOUT = re.compile(r"#\s*(?P<key>[A-Z][A-Z0-9 ]*?)\s*:\s*(?P<value>.*)$")
NAME = re.compile(r"ALTERNATIVE NAME (\d+)$")
GROUP = re.compile(r"\{([^{}]*)\}|(\d+)")
LINE = re.compile(r"\s*(?P<count>\d+)\s*:\s*(?P<order>(\{[\d\s,]*\}|\d+)(\s*,\s*(\{[\d\s,]*\}|\d+))*)\s*$")
COUNTED = ("NUMBER ALTERNATIVES", "NUMBER VOTERS", "NUMBER UNIQUE ORDERS")


class PrefLib(Format):
    """PrefLib's orders as events: `3: 2,{1,4}` is three rankings, of three annotators, with 1 and 4 as good as one another.

    The candidates are the alternatives, by number; names of other distributions may be shifted against the numbers, as those of
    the sushi data of 2022 are. What the head says is in `record`.
    """

    suffixes = (".soc", ".soi", ".toc", ".toi")
    text = True

    def read(self, path: Path) -> Iterator[Record]:
        head, names = _head(path)
        numbers = sorted(names)
        item: dict[str, Any] = {
            "prompt": head.get("TITLE", path.stem),
            "candidates": [{"text": names[number]} for number in numbers],
            "record": {"preflib": head, "numbers": numbers},
            "source": "preflib",
        }
        voters = 0
        for number, line in _orders(path):
            where = f"{path} line {number}"
            count, order = _order(line, where)
            unknown = next((one for group in order for one in group if one not in names), None)
            if unknown is not None:
                raise DataError(
                    f"{where}: there is no alternative {unknown}", f"the head names {numbers[0]} to {numbers[-1]}"
                )
            places = [[numbers.index(one) for one in group] for group in order]
            for _ in range(count):
                voters += 1
                answer = {"kind": "ranking", "order": places}
                yield Event.read({**item, "answer": answer, "annotator": f"voter-{voters}"}, where).written()
        said = head.get("NUMBER VOTERS")
        if said is not None and said != str(voters):
            raise DataError(
                f"{path}: its orders are of {voters} voters, and its head says {said}", "the file is incomplete"
            )

    def write(self, path: Path, rows: Iterable[Record]) -> int:
        counted: dict[str, int] = {}
        first, number = None, 0
        for number, row in enumerate(rows, 1):
            event = Event.read(row, f"{path} row {number}")
            first = first or event
            _refuse(event, first, path, number)
            assert isinstance(event.answer, Ranking)
            numbers = event.record.get("numbers") or range(1, len(event.candidates) + 1)
            groups = [[str(numbers[i]) for i in group] for group in event.answer.order]
            said = ",".join(group[0] if len(group) == 1 else "{" + ",".join(group) + "}" for group in groups)
            counted[said] = counted.get(said, 0) + 1
        assert first is not None
        numbers = first.record.get("numbers") or range(1, len(first.candidates) + 1)
        prompt = first.prompt if isinstance(first.prompt, str) else ""
        about = {"FILE NAME": path.name, "TITLE": prompt, **first.record.get("preflib", {})}
        about |= dict(zip(COUNTED, (str(len(numbers)), str(number), str(len(counted)))))
        lines = [f"# {key}: {value}" for key, value in about.items()]
        lines += [f"# ALTERNATIVE NAME {one}: {said.text}" for one, said in zip(numbers, first.candidates)]
        lines += [f"{count}: {order}" for order, count in counted.items()]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return number


def _refuse(event: Event, first: Event, path: Path, number: int) -> None:
    """Refuse an event that a file of orders of the same alternatives cannot hold."""
    where, hint = f"{path} row {number} cannot be written", "write the others into another file"
    if not isinstance(event.answer, Ranking):
        raise DataError(f"{where}: it is a {event.answer.kind}, and the format holds rankings", hint)
    if [one.text for one in event.candidates] != [one.text for one in first.candidates]:
        raise DataError(f"{where}: it ranks other alternatives than the first event", hint)
    broken = next((one.text for one in event.candidates if "\n" in one.text or one.text != one.text.strip()), None)
    if broken is not None:
        raise DataError(f"{where}: the name {broken!r:.60} has line ends or white space around it", hint)
    ranked = sum(map(len, event.answer.order))
    tied = any(len(group) > 1 for group in event.answer.order)
    if tied and path.suffix.startswith(".so"):
        raise DataError(f"{where}: {path.suffix} files have no ties", f"name it {path.stem}.to{path.suffix[-1]}")
    if ranked < len(event.candidates) and path.suffix.endswith("c"):
        raise DataError(
            f"{where}: {path.suffix} files rank every alternative, and this ranks {ranked} of {len(event.candidates)}",
            f"name it {path.stem}{path.suffix[:-1]}i",
        )


def _head(path: Path) -> tuple[dict[str, str], dict[int, str]]:
    head: dict[str, str] = {}
    names: dict[int, str] = {}
    for _, line in _lines(path):
        found = ABOUT.match(line)
        if line.startswith("#") and found:
            name = NAME.match(found["key"])
            if name:
                names[int(name[1])] = found["value"].strip()
            else:
                head[found["key"]] = found["value"].strip()
    if not names:
        raise DataError(
            f"{path} names no alternatives", "a PrefLib file has lines such as `# ALTERNATIVE NAME 1: tuna`"
        )
    said = head.get("NUMBER ALTERNATIVES")
    if said is not None and said != str(len(names)):
        raise DataError(f"{path} names {len(names)} alternatives, and its head says {said}", "correct the head")
    return head, names


def _orders(path: Path) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in _lines(path) if line.strip() and not line.startswith("#"))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_bytes().decode("utf-8").removeprefix("\ufeff")
        yield from enumerate((line.rstrip("\r\n") for line in io.StringIO(text)), 1)
    except UnicodeDecodeError as err:
        raise DataError.not_utf8(err, str(path)) from None


def _order(line: str, where: str) -> tuple[int, list[list[int]]]:
    found = LINE.match(line)
    if not found:
        raise DataError(f"{where} is not an order: {line[:60]!r}", "an order is written as `3: 2,{1,4}`")
    groups = [
        [int(one) for one in (inner or single).split(",") if one.strip()]
        for inner, single in GROUP.findall(found["order"])
    ]
    return int(found["count"]), [group for group in groups if group]
