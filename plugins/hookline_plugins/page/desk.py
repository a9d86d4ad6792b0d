"""The annotators' work: which question comes next, what an answer becomes, and what was answered before.

Whatever must last is in the store. A desk forgets nothing that matters when it ends: a lease gives the same item again, and earlier
answers are read from the store.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from hookline import Comment, Counts, DataError, Event, Item, Skip, Store
from hookline_plugins.asking import Question, asked_anew, question_of
from hookline_plugins.page.answering import Given, Wrong, events_of, given_in, stored
from hookline_plugins.page.questions import given_of, handle_of, order_of, shown
from hookline_plugins.page.rendering import Media, beginning

__all__ = ["Desk", "Wrong", "item_of"]

LEASE = 1800.0
"""Seconds for which an item waits for the annotator who has it."""
AT_ONCE = 8
"""Questions that an annotator may have at once."""
FRESH = 1.0
"""Seconds for which the store's numbers are shown again."""


@dataclass
class _Work:
    """One annotator's: what was shown, and what was answered, by item."""

    served: dict[str, tuple[Item, str | None]] = field(default_factory=dict)
    """Handle → item, and the id of the event that it repeats."""
    answered: dict[str, Event] = field(default_factory=dict)
    """Item → the newest answer; skips too."""
    order: list[str] = field(default_factory=list)
    """Items in the order in which they were answered first."""
    skips: int = 0
    """Items whose newest answer is a skip."""
    seconds: float = 0.0
    """Time spent on the newest answers."""
    ids: dict[str, Event] = field(default_factory=dict)
    """The annotator's events by id."""
    repeated: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Two tabs answer one after the other."""


class Desk:
    """What annotators do with a store's items."""

    def __init__(
        self,
        store: Store,
        secret: bytes,
        question: Question | None = None,
        *,
        repeat_every: int = 0,
        guidelines: str = "",
        source: str = "page",
    ) -> None:
        """secret: decides the order of sides and the names of items in browsers; repeat_every: after so many answers, an
        earlier item is asked again; guidelines: a hash of them, which every answer keeps."""
        self.store, self.secret, self.media = store, secret, Media()
        self.question = question or Question()
        self.repeat_every, self.guidelines, self.source = repeat_every, guidelines, source
        self._work: dict[str, _Work] = {}
        self._lock = threading.Lock()
        self._counted: tuple[float, Counts] | None = None

    # -- questions

    def next(self, annotator: str, beside: Collection[str] = ()) -> dict[str, Any] | None:
        """The annotator's next question; None if there is nothing to do now. Asking again gives the same one.

        beside: handles of questions that the annotator has at hand; another one comes then. Raises Wrong for too many.
        """
        work = self._of(annotator)
        if len(beside) >= AT_ONCE:
            raise Wrong(f"an annotator has at most {AT_ONCE} questions at once; answer one of them first", 409)
        at_hand = [found for found in (self._find(annotator, handle) for handle in beside) if found[0] is not None]
        if not any(repeats for _, repeats in at_hand) and (again := self._repeat(work)):
            return self._serve(annotator, again[0], again[1])
        others = [item.id for item, repeats in at_hand if item is not None and repeats is None]
        item = self.store.lease(annotator, seconds=LEASE, beside=others)
        while item is not None:
            try:
                asked_anew(item, self.question)
                return self._serve(annotator, item)
            except DataError:  # what cannot be asked is skipped, with its reason, and the next one comes
                name = f"{annotator}/{handle_of(self.secret, item.id, annotator)}"
                self.store.append([item.event(Skip(reason="cannot be asked"), annotator, id=name, source=self.source)])
                item = self.store.lease(annotator, seconds=LEASE, beside=others)
        return None

    def following(self, annotator: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """With an answer that says `beside` which questions the annotator still has: `question`, the next one beside those."""
        beside = body.get("beside")
        if not isinstance(beside, list):
            return {}
        try:
            return {"question": self.next(annotator, beside)}
        except (DataError, Wrong):  # the answer is stored, which matters more
            return {"question": None}

    def earlier(self, annotator: str, handle: str) -> dict[str, Any] | None:
        """A question that the annotator answered, with the answer as it was given."""
        item, _ = self._find(annotator, handle)
        work = self._of(annotator)
        event = work.answered.get(item.id) if item else None
        if item is None or event is None:
            return None
        made = self._serve(annotator, item)
        comment = work.ids.get(f"{event.id}/comment")
        said = comment.answer.text if comment else ""  # type: ignore[union-attr]
        return {
            **made,
            "given": given_of(event.answer, self._order(annotator, item)),
            "comment": said,
            "replaces": event.id,
        }

    def answered(self, annotator: str, most: int = 200) -> list[dict[str, Any]]:
        """The annotator's answers, the newest first."""
        work = self._of(annotator)
        found = []
        for name in reversed(work.order[-most:]):
            event = work.answered[name]
            kind = event.answer.kind
            found.append(
                {
                    "handle": handle_of(self.secret, name, annotator),
                    "prompt": beginning(event.prompt),
                    "kind": kind,
                    "at": event.submitted_at,
                }
            )
        return found

    def progress(self, annotator: str) -> dict[str, Any]:
        """How much an annotator has done, and how much there is."""
        work = self._of(annotator)
        counts = self._counts()
        return {
            "answers": len(work.answered) - work.skips,
            "skips": work.skips,
            "seconds": round(work.seconds),
            "items": counts.items,
            "complete": counts.complete,
        }

    def _counts(self) -> Counts:
        """The store's numbers, which it counts at most once a second: that reads its whole index."""
        found, now = self._counted, time.monotonic()
        if found is None or now - found[0] > FRESH:
            self._counted = found = now, self.store.counts()
        return found[1]

    # -- answers

    def answer(self, annotator: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Store an answer; it is on the disk when this returns. The same answer again, by its id, changes nothing.

        Raises Wrong for anything else than an answer to a question that the annotator was asked.
        """
        given = given_in(body)
        item, repeats = self._find(annotator, body.get("handle"))
        if item is None:
            raise Wrong("that item was not given to you, or its time is over; go on with the next one", 404)
        with self._of(annotator).lock:
            return self._answer(annotator, item, repeats, given)

    def _answer(self, annotator: str, item: Item, repeats: str | None, given: Given) -> dict[str, Any]:
        work = self._of(annotator)
        asked, order = question_of(item, self.question), self._order(annotator, item)
        standing, name = work.answered.get(item.id), f"{annotator}/{given.number}"
        if name not in work.ids and repeats is None and standing is not None and given.replaces != standing.id:
            raise Wrong("you have answered that item meanwhile, perhaps in another tab", 409)
        events = events_of(
            item, asked, order, annotator, given, name, source=self.source, repeats=repeats, extra=self.about(item)
        )
        stored(self.store, events)
        self._took(work, events)
        return {"id": given.number, "stored": True}

    def about(self, item: Item) -> dict[str, Any]:
        """What every answer to an item keeps: by which guidelines it was given, and what the item itself asks."""
        return {
            **({"guidelines": self.guidelines} if self.guidelines else {}),
            **({"ask": item.extra["ask"]} if "ask" in item.extra else {}),
        }

    # -- what was asked and answered

    def _repeat(self, work: _Work) -> tuple[Item, str] | None:
        """An item that was answered long enough ago to be asked once more."""
        every = self.repeat_every
        if not every or len(work.order) < 2 * every or len(work.order) // every - 1 <= len(work.repeated):
            return None
        name = next(
            (
                n
                for n in work.order[:-every]
                if n not in work.repeated and not isinstance(work.answered[n].answer, Skip)
            ),
            None,
        )
        if name is None:
            return None
        return item_of(work.answered[name]), work.answered[name].id

    def _serve(self, annotator: str, item: Item, repeats: str | None = None) -> dict[str, Any]:
        asked = question_of(item, self.question)
        order = self._order(annotator, item)
        handle = handle_of(self.secret, item.id if repeats is None else f"{item.id}\0{repeats}", annotator)
        self._of(annotator).served[handle] = item, repeats
        return {"handle": handle, **shown(item, asked, order, self.media)}

    def _find(self, annotator: str, handle: Any) -> tuple[Item | None, str | None]:
        """The item behind a handle: one that was shown, that is leased, or that was answered, also before a restart."""
        work = self._of(annotator)
        if not isinstance(handle, str):
            return None, None
        if handle in work.served:
            return work.served[handle]
        for name, event in work.answered.items():
            if handle_of(self.secret, name, annotator) == handle:
                return item_of(event), None
            if handle_of(self.secret, f"{name}\0{event.id}", annotator) == handle:
                return item_of(event), event.id
        for item in self.store.leased(annotator):
            if handle_of(self.secret, item.id, annotator) == handle:
                return item, None
        return None, None

    def _order(self, annotator: str, item: Item) -> tuple[int, ...]:
        return order_of(self.secret, item.id, annotator, len(item.candidates))

    def _of(self, annotator: str) -> _Work:
        with self._lock:
            work = self._work.get(annotator)
        if work is None:
            work = _Work()
            self._took(work, self.store.events(annotator=annotator))
            with self._lock:
                work = self._work.setdefault(annotator, work)
        return work

    @staticmethod
    def _took(work: _Work, events: Any) -> None:
        for event in events:
            work.ids[event.id] = event
            if isinstance(event.answer, Comment) or event.decides or "chat" in event.extra:
                continue
            if event.repeats:
                work.repeated.add(event.item)
                continue
            before = work.answered.get(event.item)
            if before is None:
                work.order.append(event.item)
            else:
                work.skips -= isinstance(before.answer, Skip)
                work.seconds -= before.seconds or 0.0
            work.skips += isinstance(event.answer, Skip)
            work.seconds += event.seconds or 0.0
            work.answered[event.item] = event

    def forget(self, annotator: str) -> None:
        """Drop what is remembered of an annotator."""
        with self._lock:
            self._work.pop(annotator, None)


def item_of(event: Event) -> Item:
    """The item that an event is about."""
    return Item(
        id=event.item, prompt=event.prompt, prompt_ids=event.prompt_ids, candidates=event.candidates, expected=event.expected,
        record=event.record, extra={"ask": event.extra["ask"]} if "ask" in event.extra else {},
    )  # fmt: skip
