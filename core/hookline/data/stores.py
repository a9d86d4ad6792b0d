"""Opens the store that a URL or a file names: `sqlite:///answers.db`, `postgresql://host/answers`, `answers.jsonl`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

from pydantic import ValidationError

from hookline.contract.check import check_class
from hookline.contract.store import Store
from hookline.errors import DataError, PluginError, shorten
from hookline.registry.construct import configure, construct
from hookline.registry.offers import Offer, offers
from hookline.synonyms import suggestion

__all__ = ["made_store", "store"]


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
