"""Makes the tasks of data names such as `builtin:walks?seed=1002`."""

from __future__ import annotations

from functools import lru_cache

from pydantic import ValidationError

from hookline.contract.check import check_class
from hookline.contract.task import Task
from hookline.data.names import is_task, parts
from hookline.errors import DataError, shorten
from hookline.registry.construct import configure, construct
from hookline.registry.offers import Offer, find
from hookline.synonyms import suggestion

__all__ = ["task", "task_and_split"]


def task_offer(name: str, loose: tuple[Offer, ...]) -> Offer:
    """The offer of the task in a data name."""
    asked = parts(name)
    return find("task", f"hookline:{asked.task}" if asked.prefix == "builtin" else asked.task, loose)


def task_and_split(name: str, loose: tuple[Offer, ...]) -> tuple[Task, str]:
    asked = parts(name)
    try:
        return _make_task(task_offer(name, loose), asked.options), asked.split
    except DataError as err:
        raise DataError(f"{name}: {err.message}", err.hint) from None


@lru_cache(maxsize=32)
def _make_task(offer: Offer, options: tuple[tuple[str, str], ...]) -> Task:
    cls = check_class(offer.load(), "task", str(offer))
    known = cls.Config.model_fields
    try:
        config = configure(cls, dict(options), str(offer))
    except ValidationError as err:
        first = err.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        has = f"it has: {', '.join(known)}" if known else "it has no options"
        if first["type"] == "extra_forbidden":
            raise DataError(f"'{offer.name}' has no option '{shorten(key)}'{suggestion(key, known)}", has) from None
        raise DataError(f"{key} is {shorten(str(first['input']))}: {first['msg']}", has) from None
    made = construct(cls, config, str(offer))
    made.instance = offer.name
    assert isinstance(made, Task)
    return made


def task(name: str, loose: tuple[Offer, ...] = ()) -> Task:
    """The task of a data name such as `builtin:walks`."""
    if not is_task(name):
        raise DataError(f"{shorten(name)} is not a task", "name one, e.g. builtin:NAME (hookline plugins list)")
    return task_and_split(name, loose)[0]
