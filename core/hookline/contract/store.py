"""A store keeps items to be judged and the events that answer them, for many annotators, threads and processes at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pydantic import Field, model_validator

from hookline.contract.component import Component, ConfigT
from hookline.contract.feedback import Answer, Candidate, Event, Kept, TokenId, item_id

if TYPE_CHECKING:
    from hookline.contract.context import Context

__all__ = ["Counts", "Item", "Store", "Verified"]

T = TypeVar("T")
BATCH = 500
"""Items or events that are copied in one transaction."""


class Item(Kept):
    """A prompt with its candidates, to be judged by a number of annotators."""

    id: str = Field("", max_length=200)
    """The same as `item` of the events about it. Default: a hash of the prompt and the candidates."""
    prompt: str | tuple[dict[str, Any], ...]
    """A text, or messages."""
    prompt_ids: tuple[TokenId, ...] | None = None
    """The prompt's tokens, where the candidates have theirs."""
    candidates: tuple[Candidate, ...] = Field(min_length=1)
    """The answers to the prompt."""
    overlap: int = Field(1, ge=1)
    """How many annotators judge the item."""
    priority: float = 0.0
    """Items with a higher number are given out first; equal ones in the order in which they came."""
    expected: Answer | None = None
    """The right answer, for an item that checks annotators; they are not shown it."""
    record: dict[str, Any] = Field(default_factory=dict)
    """The dataset row of the prompt."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Anything else, as JSON."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not self.id:
            object.__setattr__(self, "id", item_id(self.prompt, self.prompt_ids, self.candidates))
        return self

    def written(self) -> dict[str, Any]:
        """The item as JSON, without the fields that say nothing."""
        dumped = self.model_dump(mode="json", exclude_defaults=True)
        expected = {"expected": {"kind": self.expected.kind, **dumped["expected"]}} if self.expected else {}
        return {**dumped, **expected}

    def event(self, answer: Any, annotator: str, **more: Any) -> Event:
        """An event about this item. more: further fields of the event, e.g. `id`, `shown` and `seconds`."""
        about = {name: getattr(self, name) for name in ("prompt", "prompt_ids", "candidates", "expected", "record")}
        return Event(**{**about, "item": self.id, "answer": answer, "annotator": annotator, **more})


@dataclass(frozen=True)
class Counts:
    """How far the work on a store is."""

    items: int
    """Items that were put."""
    complete: int
    """Items that as many annotators have answered as their `overlap` says."""
    events: int
    """Events that are kept, skips and comments included."""
    annotators: int
    """Annotators who took or answered an item."""
    newest: int = field(default=0, compare=False, repr=False)
    """The number of the newest event in the store's log; 0 for a store without one. Where this and `events` are as before, no event
    was added or removed; `events` alone is also the same when one was removed and another added."""


@dataclass(frozen=True)
class Verified:
    """What a store was verified to hold."""

    entries: int
    """Entries of its log; 0 for a store without one."""
    head: str
    """The hash of the newest entry, which depends on all before it: two stores with the same head hold the same. Kept
    elsewhere, it shows later that nothing before it was changed or removed. Empty for a store without a log."""
    counts: Counts
    """Items, events and annotators."""
    unreadable: int
    """Entries of annotators that were forgotten, whose content nobody can read."""


class Store(Component[ConfigT]):
    """Keeps items and events: kind `store`. A URL or a file names one: `sqlite:///answers.db`, `answers.jsonl`.

    The config needs the option `url`, and no other that has no default. `hookline.store(URL)` makes the component and
    opens it. All methods may be called by any thread; other processes may use the same place, or are refused when they
    open it. What a method wrote is on the disk when the method returns: it survives a kill and a power failure.

    Raises ServiceError where the place cannot be reached, is full or is locked by another process; nothing was stored
    then, or, if the connection broke, perhaps everything, so the same call can be repeated.
    """

    schemes: ClassVar[Sequence[str]] = ()
    """The URLs that the store opens, by what is before `://`, e.g. `("sqlite", "postgresql")`."""
    suffixes: ClassVar[Sequence[str]] = ()
    """The endings of the file names that it opens, e.g. `(".jsonl",)`."""

    def setup(self, ctx: Context) -> None:
        """Open the store, for a component that is named in an experiment."""
        self.open()

    @abstractmethod
    def open(self, *, create: bool = True) -> None:
        """Open the place that `config.url` names, bring an older version of it to the present one, and create what is
        not there. Raises DataError if it is not a store, and with `create=False` if nothing is there."""
        raise NotImplementedError

    @abstractmethod
    def put(self, items: Iterable[Item]) -> list[Item]:
        """Add items to be judged, all or none, and return those that are new.

        An item that is there already changes nothing. Raises DataError for the id of an item with other content.
        """
        raise NotImplementedError

    @abstractmethod
    def lease(self, annotator: str, *, seconds: float = 900.0, beside: Collection[str] = ()) -> Item | None:
        """Give an annotator an item that waits for answers; None if there is none for this annotator.

        Of one item, annotators who have answered and live leases together are never more than its `overlap`, however many
        ask at once. A lease ends after `seconds`, or with an answer or a skip. An annotator who asks again gets the same
        item until then, for `seconds` from now, and never an item that they answered or skipped.

        beside: ids of items that the annotator goes on with. Another one is given then: the first of the annotator's other
        leases, or a new one.
        """
        raise NotImplementedError

    @abstractmethod
    def leased(self, annotator: str) -> list[Item]:
        """The items of an annotator's live leases, in the order in which items are given out."""
        raise NotImplementedError

    @abstractmethod
    def append(self, events: Iterable[Event]) -> list[Event]:
        """Store events, all or none, and return those that are new.

        The same event again, by its id, changes nothing, so a client that got no reply sends it again. Raises DataError for
        an id with other content, and for an answer to an item for which the annotator has no lease while others have
        answered it or have leases, as many as its `overlap`. Events about items that were never put are stored, too.
        Skips, comments and decisions (`event.decides`) are not counted as answers, and need no lease. The same holds for what a
        model says (`event.role`) without a lease, which is kept beside the answers of people and takes none of their places.
        """
        raise NotImplementedError

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """All items, in the order in which they came."""
        raise NotImplementedError

    @abstractmethod
    def events(self, *, annotator: str | None = None) -> Iterator[Event]:
        """All events, or those of one annotator, in the order in which they came; those that came before the call, at least."""
        raise NotImplementedError

    @abstractmethod
    def counts(self) -> Counts:
        """The numbers of items, events and annotators."""
        raise NotImplementedError

    @abstractmethod
    def forget(self, annotator: str) -> int:
        """Remove everything that an annotator said and did, beyond recovery, and return the number of events.

        Their items wait for another annotator. Raises DataError for an annotator who is not there.
        """
        raise NotImplementedError

    @abstractmethod
    def verify(self) -> Verified:
        """Read everything and check it. Raises DataError naming the first thing that is damaged or was changed."""
        raise NotImplementedError

    @abstractmethod
    def backup(self, path: Path) -> None:
        """Write a store of its own with the present content to a path, while others go on writing here. It can be opened.

        Raises DataError if something is there already.
        """
        raise NotImplementedError

    def together(self, calls: Sequence[Callable[[], T]]) -> list[T | Exception]:
        """Make several calls that use the store, and return what each returned or raised, once all that was stored is on the disk.

        A store may make them in one transaction, which is written once. It raises what makes all of them fail; nothing of
        them was stored then, or, as elsewhere, perhaps everything. By default they are made one after the other.
        """
        return [_result(call) for call in calls]

    def copy_to(self, target: Store) -> int:
        """Copy what another store lacks, and return the number of items and events. A copy that was killed can be
        repeated; leases are not copied."""
        return sum(len(target.put(some)) for some in _batches(self.items())) + sum(
            len(target.append(some)) for some in _batches(self.events())
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _result(call: Callable[[], T]) -> T | Exception:
    try:
        return call()
    except Exception as err:
        return err


def _batches(things: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(things)
    while some := list(islice(rest, BATCH)):
        yield some
