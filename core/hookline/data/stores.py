"""Opens the store that a URL or a file names: `sqlite:///answers.db`, `postgresql://host/answers`, `answers.jsonl`."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import Any, cast

from pydantic import ValidationError

from hookline.batch.stages import Record
from hookline.config.data import Part, Reads
from hookline.contract.check import check_class
from hookline.contract.store import Store
from hookline.data.places import PART, Found
from hookline.data.reading import FIRST
from hookline.data.rows import Rows, digest
from hookline.data.source import Source
from hookline.errors import DataError, PluginError, shorten
from hookline.registry.construct import configure, construct
from hookline.registry.offers import Offer, offers
from hookline.storage.paths import store_beside
from hookline.synonyms import suggestion

__all__ = ["Stored", "is_store", "made_store", "store"]

PREFIX = "store:"
"""How the data name of a store begins that is a file, e.g. `store:answers.jsonl`."""


def is_store(name: str) -> bool:
    """Whether a data name means a store: it is a URL, or begins with `store:`."""
    return "://" in name or name.startswith(PREFIX)


class Stored(Source):
    """The events of a store. Raises DataError if there is none."""

    def __init__(self, part: Part, how: Reads, loose: tuple[Offer, ...], folder: str) -> None:
        self.name, self.weight, self.how, self._loose = part.path, part.weight, how, loose
        asked = PART.match(how.split or "")
        if asked is None or asked["split"] or how.subset is not None:
            raise DataError(f"{self.name} is a store, which has no splits", 'a part of its events: split: "[:1000]"')
        self._found = Found((), asked["start"] or "", asked["stop"] or "")
        self._url = store_beside(part.path.removeprefix(PREFIX), folder)
        with store(self._url, create=False, loose=loose):
            pass

    def offers(self) -> list[Offer]:
        return [_offer(self._url, self._loose)[0]]

    def rows(self) -> Rows:
        with store(self._url, create=False, loose=self._loose) as opened:
            events = tuple(event.written() for event in opened.events())
        if not events:
            raise DataError(f"{self.name}: 0 usable rows: nobody has answered", "collect answers first")
        part = self._found.part(len(events))
        records = events[part.start : part.stop]  # hashed alone: events that come later do not change the first 1000
        return Rows(self.name, records, digest(records))

    def head(self) -> tuple[list[tuple[str, Record]], bool]:
        with store(self._url, create=False, loose=self._loose) as opened:
            some = [event.written() for event in islice(opened.events(), FIRST + 1)]
        return [(f"{self.name} event {i}", row) for i, row in enumerate(some[:FIRST], 1)], len(some) <= FIRST


def store(url: str, *, create: bool = True, loose: tuple[Offer, ...] = (), **options: Any) -> Store:
    """Open the store that a URL or a file names; close it at the end, or use `with hookline.store(URL) as store`.

    create: whether an empty store is made where there is none. options: further options of the component, e.g. `scrub`.
    Raises DataError for what is not a store, or has options that the component does not have, and ServiceError where it
    cannot be reached.
    """
    opened = made_store(url, loose, **options)
    try:
        opened.open(create=create)
    except BaseException:
        opened.close()
        raise
    return opened


def made_store(url: str, loose: tuple[Offer, ...] = (), **options: Any) -> Store:
    """The store that a URL names, not opened."""
    offer, cls = _offer(url, loose)
    known = [field.alias or name for name, field in cls.Config.model_fields.items()]
    try:
        config = configure(cls, {"url": url, **options}, str(offer))
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            why = f"'{offer.name}' has no option '{shorten(key)}'{suggestion(key, known)}"
            raise DataError(why, f"it has: {', '.join(known)}") from None
        raise DataError(f"{shorten(url)}: {key}: {first['msg']}", f"options: {', '.join(known)}") from None
    made = construct(cls, config, str(offer))
    made.instance = offer.name
    return cast("Store", made)


def _offer(url: str, loose: tuple[Offer, ...]) -> tuple[Offer, type[Store]]:
    """The store that opens a URL. Built-in and loose ones come before installed ones."""
    scheme, sign, _ = url.partition("://")
    known: list[str] = []
    for built_in in (True, False):
        found = []
        for offer in offers(loose):
            if offer.kind != "store" or offer.problem or (offer.built_in or bool(offer.path)) is not built_in:
                continue
            cls = _class(offer)
            known += [*(f"{one}://…" for one in cls.schemes), *cls.suffixes]
            if (scheme.partition("+")[0] in cls.schemes) if sign else url.lower().endswith(tuple(cls.suffixes)):
                found.append((offer, cls))
        if len(found) > 1:
            raise PluginError(
                f"{shorten(url)} is opened by {' and '.join(str(offer) for offer, _ in found)}", "uninstall one of them"
            )
        if found:
            return found[0]
    raise DataError(f"{shorten(url)} is not the name of a store", f"known are {', '.join(known)}")


@lru_cache(maxsize=32)
def _class(offer: Offer) -> type[Store]:
    return cast("type[Store]", check_class(offer.load(), "store", str(offer)))
