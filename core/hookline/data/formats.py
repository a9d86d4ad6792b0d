"""Which format reads a file: by the ending of its name, or as `NAME:FILE` says. The built-in ones: JSON lines and text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hookline.batch.encoded import Record
from hookline.contract.check import check_class
from hookline.contract.format import Format
from hookline.data.jsonl import decode, read_jsonl
from hookline.errors import DataError, PluginError
from hookline.registry.offers import Offer, find, offers

__all__ = ["JSONLines", "Text", "format_and_file"]


class JSONLines(Format):
    """One JSON object per line, read strictly: torn lines, double keys and numbers that are none are refused by line."""

    suffixes = (".jsonl", ".json", ".ndjson")

    def read(self, path: Path) -> Iterator[Record]:
        yield from read_jsonl(path)


class Text(Format):
    """Plain text: rows of `text`, with a blank line between them."""

    suffixes = (".txt",)

    def read(self, path: Path) -> Iterator[Record]:
        for part in re.split(r"\n\s*\n", decode(path.read_bytes(), str(path))):
            if part.strip():
                yield {"text": part.strip()}


@dataclass(frozen=True)
class Known:
    """The formats on offer that can be used, and those that cannot."""

    formats: tuple[tuple[Offer, Format], ...]
    broken: tuple[str, ...]

    @property
    def suffixes(self) -> list[str]:
        return sorted({suffix for _, one in self.formats for suffix in one.suffixes})


def format_and_file(name: str, loose: tuple[Offer, ...] = ()) -> tuple[Format | None, str]:
    """The format that a data name names with `FORMAT:FILE` or `DISTRIBUTION:FORMAT:FILE`, if it does, and the file.

    A file whose own name holds a colon is that file. Raises PluginError for a format that nobody offers.
    """
    head, colon, rest = name.partition(":")
    if not colon or not rest or not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", head) or _is_there(name):
        return None, name
    second, colon, file = rest.partition(":")
    if colon and file and any(o.kind == "format" and o.name == second for o in offers(loose)):
        return _make(find("format", f"{head}:{second}", loose)), file
    return _make(find("format", head, loose)), rest


def by_suffix(path: Path, name: str, loose: tuple[Offer, ...] = ()) -> Format:
    """The format that claims the ending of a file's name. Raises DataError where none does, or several do.

    A built-in ending stays with the built-in format whatever is installed; a loose file that claims it too is refused.
    """
    ours = _known(tuple(offer for offer in offers() if offer.built_in))
    given = _known(tuple(loose))
    for known in (ours, given):
        claims = [pair for pair in known.formats if path.suffix in pair[1].suffixes]
        if claims and known is ours:
            claims += [pair for pair in given.formats if path.suffix in pair[1].suffixes]
        if claims:
            return _only(claims, path, name)
    others = _known(tuple(offer for offer in offers() if not offer.built_in))
    claims = [pair for pair in others.formats if path.suffix in pair[1].suffixes]
    if claims:
        return _only(claims, path, name)
    suffixes = sorted({*ours.suffixes, *given.suffixes, *others.suffixes})
    broken = "".join(f"; {problem}" for problem in (*given.broken, *others.broken))
    raise DataError(
        f"{name}: unknown kind of file '{path.suffix}'; known are {', '.join(suffixes)}{broken}",
        "use .jsonl (one row a line) or .txt (blank line between texts), or say FORMAT:FILE (hookline plugins list)",
    )


def offer_of(reader: Format, loose: tuple[Offer, ...] = ()) -> Offer:
    """The offer that a format in use was made from."""
    named = (o for o in offers(loose) if o.kind == "format" and o.name == reader.instance and not o.problem)
    return next(offer for offer in named if offer.load() is type(reader))


def _only(claims: list[tuple[Offer, Format]], path: Path, name: str) -> Format:
    if len(claims) > 1:
        who = " and ".join(str(offer) for offer, _ in claims)
        raise DataError(f"{name}: '{path.suffix}' files are read by {who}", f"say which: {claims[0][0].name}:{name}")
    return claims[0][1]


@lru_cache(maxsize=32)
def _known(among: tuple[Offer, ...]) -> Known:
    """The formats among some offers, imported; one that cannot be imported is a sentence."""
    found, broken = [], []
    for offer in among:
        if offer.kind == "format" and not offer.problem:
            try:
                found.append((offer, _make(offer)))
            except PluginError as err:
                broken.append(err.message)
    return Known(tuple(found), tuple(broken))


@lru_cache(maxsize=64)
def _make(offer: Offer) -> Format:
    cls = check_class(offer.load(), "format", str(offer))
    made = cls(cls.Config())
    made.instance = offer.name
    assert isinstance(made, Format)
    return made


def _is_there(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False
