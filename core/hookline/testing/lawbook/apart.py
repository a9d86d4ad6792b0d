"""Laws about a component by itself, for every kind: how it is constructed and closed."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from pydantic import ValidationError

from hookline.contract.component import Component
from hookline.errors import HooklineError, cause
from hookline.registry.construct import construct
from hookline.testing.harness import waited
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law
from hookline.testing.surroundings import guesses, naming, unfilled


def made(subject: Subject) -> Component:
    """A component with the subject's options, and simple values for required ones; it is not set up."""
    fields = subject.cls.Config.model_fields
    required = {field.alias or name for name, field in fields.items() if field.is_required()}
    options: dict[str, Any] = guesses(subject.cls, set(subject.options))
    options |= {name: subject.rows for name in naming(subject.cls, "data") if name in required}
    options |= {name: "before" for name in naming(subject.cls, "phase") if name in required}
    options |= {"url": str(subject.folder / "store")} if subject.kind == "store" and "url" in required else {}
    try:
        config = subject.cls.Config.model_validate({**options, **subject.options})
    except ValidationError as err:
        raise NotApplicable(str(unfilled(subject.offer, err))) from None
    component = construct(subject.cls, config, str(subject.offer))
    component.instance = subject.offer.name
    return component


@law("every", alone=True)
def opens_nothing(subject: Subject) -> str | None:
    """The constructor takes the config and opens nothing: no file, socket, process or thread."""
    try:
        made(subject)
    except HooklineError as err:
        raise Broken(str(err)) from None
    return None


@law("every", alone=True)
def closes(subject: Subject) -> str | None:
    """The component can be closed before it was set up, and can be closed twice."""
    component = made(subject)
    for time in ("before setup", "a second time"):
        try:
            answer = component.close()
            if inspect.isawaitable(answer):
                asyncio.run(waited(answer))
        except Exception as err:
            raise Broken(f"close() {time} raises {cause(err)}") from None
    return None
