"""Feedback that a user's own application posts: about one answer, with the id that makes a repeated request harmless."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hookline import DataError, Event, Store
from hookline_plugins.page.answering import Wrong, stored

__all__ = ["post_feedback"]


def post_feedback(store: Store, application: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Store one event or several: `{"events": [{"id": …, "prompt": …, "candidates": […], "answer": {…}}]}`.

    An event has the fields of hookline.Event; its id is the application's own, and the annotator is called APPLICATION/NAME.
    """
    given = body.get("events")
    if not isinstance(given, list) or not 1 <= len(given) <= 1000:
        raise Wrong("`events` is not a list of 1 to 1000 events", 422)
    events = []
    for number, values in enumerate(given, 1):
        if not isinstance(values, Mapping) or not isinstance(values.get("id"), str) or not values["id"]:
            raise Wrong(f"event {number} has no `id`, by which a repeated request is recognised", 422)
        who = values.get("annotator", "user")
        named = {
            **values,
            "id": f"{application}/{values['id']}",
            "annotator": f"{application}/{who}",
            "source": application,
        }
        try:
            events.append(Event.read(named, f"event {number}"))
        except DataError as err:
            raise Wrong(err.message, 422) from None
    return {"stored": len(events), "new": len(stored(store, events))}
