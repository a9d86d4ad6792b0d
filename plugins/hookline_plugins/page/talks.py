"""People talk with models and judge the replies: what a conversation is, what waits to be judged, and what a judgement becomes.

A judged reply is in the store, and a conversation is read from its judgements again. What is not judged yet is in memory: the browser
keeps the message, and the same message gives the same replies, since their seeds are made from the conversation and the turn.
"""

from __future__ import annotations

import hmac
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hookline import Candidate, Comment, Event, Item, Skip, Store, newest
from hookline_plugins.asking import Question
from hookline_plugins.page.answering import Wrong, events_of, given_in, stored
from hookline_plugins.page.guard import Bucket
from hookline_plugins.page.questions import given_of, order_of
from hookline_plugins.page.rendering import Media, conversation, rendered
from hookline_plugins.page.writer import Reply, Writer

__all__ = ["Talks"]

SESSION = re.compile(r"[0-9a-f]{32}")
LONGEST = 20_000
"""Characters of a message."""
MOST = 20
"""Conversations of a person in memory; others are read from the store again."""
ABOUT = {"session", "turn", "continues", "ended"}
"""What a judgement in a conversation keeps in `extra.chat`, at least."""
Message = Mapping[str, Any]


@dataclass
class _Turn:
    """What a person said last, and the replies that wait to be judged."""

    asked: str
    replies: list[Reply]
    seeds: list[int]


@dataclass
class _Talk:
    """One person's conversation."""

    session: str
    messages: list[Message]
    """What was said and judged."""
    number: int = 0
    """The number of the next turn."""
    turn: _Turn | None = None
    judged: Event | None = None
    """The newest judgement, which can be changed."""
    comment: str = ""
    """What was said about it."""
    ids: set[str] = field(default_factory=set)
    """The ids of its judgements."""
    lock: threading.RLock = field(default_factory=threading.RLock)


class Talks:
    """What people do with the models of a page."""

    def __init__(
        self,
        store: Store,
        secret: bytes,
        writers: Sequence[Writer],
        question: Question,
        media: Media,
        *,
        replies: int = 2,
        system: str = "",
        extra: Mapping[str, Any] | None = None,
        source: str = "page",
    ) -> None:
        """writers: one model, or two that are compared; replies: 1 or 2 per turn; extra: kept with every judgement."""
        self.store, self.secret, self.writers, self.media, self.source = store, secret, list(writers), media, source
        self.extra = dict(extra or {})
        self.question = question
        self.writing = list(writers) * (replies if len(writers) == 1 else 1)
        """Which model writes each reply."""
        self.begins: list[Message] = [{"role": "system", "content": system}] if system else []
        self.rate = Bucket(0.5, 10)
        """Messages of a person: each costs seconds of a model."""
        self._talks: OrderedDict[tuple[str, str], _Talk] = OrderedDict()
        self._lock = threading.Lock()

    # -- what a browser sees

    def shown(self, who: str, session: str | None, *, turn_alone: bool = False) -> dict[str, Any]:
        """A conversation as it is: without a name, the person's last one, or a new one. turn_alone: without what was said
        before, which only a judgement changes."""
        talk = self._talk(who, session or self._last(who))
        with talk.lock:
            found: dict[str, Any] = {"session": talk.session, "number": talk.number, "turn": self._turn(who, talk)}
            if not turn_alone:
                found["turns"] = conversation(talk.messages, self.media, markdown=self.question.markdown)
                found["last"] = self._judged(talk) if talk.judged else None
            return found

    def _turn(self, who: str, talk: _Talk) -> dict[str, Any] | None:
        turn = talk.turn
        if turn is None:
            return None
        for writer, reply in zip(self.writing, turn.replies):
            writer.look(reply)
        failed = next((reply.why for reply in turn.replies if reply.state == "failed"), "")
        ready = all(reply.state == "done" for reply in turn.replies)
        # of two models, the faster one is not shown before the other: that would tell which is which
        seen = ready or (len(self.writers) == 1 and not failed)
        order = self._order(who, talk.session, talk.number)
        return {
            "asked": self._said("user", turn.asked),
            "text": turn.asked,
            "state": "failed" if failed else "ready" if ready else "writing",
            "why": failed,
            "same": ready and len({reply.text for reply in turn.replies}) < len(turn.replies),
            "candidates": [self._candidate(turn.replies[place]) for place in order] if seen else [],
            **self._controls(turn.replies),
        }

    def _judged(self, talk: _Talk) -> dict[str, Any]:
        """The newest judgement as it was asked and answered, to be changed."""
        event = talk.judged
        assert event is not None
        about, prompt = event.extra["chat"], list[Any](event.prompt)
        return {
            "number": about["turn"],
            "replaces": event.id,
            "turns": conversation(prompt[:-1], self.media, markdown=self.question.markdown),
            "asked": self._said("user", str(prompt[-1]["content"])),
            "candidates": [
                {
                    "html": rendered(event.candidates[place].text, markdown=self.question.markdown),
                    "cut": about["ended"][place] == "length",
                    "empty": not event.candidates[place].text.strip(),
                }
                for place in event.shown
            ],
            "given": given_of(event.answer, event.shown),
            "comment": talk.comment,
            "continues": event.shown.index(about["continues"]),
            "state": "ready",
            "same": False,
            **self._controls(event.candidates),
        }

    def _asked_about(self, candidates: Sequence[Any]) -> Question:
        """The question about two replies, or about one: a page may have been started with another number of them."""
        return self.question.model_copy(update={"kind": "comparison" if len(candidates) == 2 else "thumb"})

    def _controls(self, candidates: Sequence[Any]) -> dict[str, Any]:
        asked = self._asked_about(candidates)
        return {"kind": asked.kind, "strength": asked.strength, "ties": asked.ties, "bothBad": asked.both_bad}

    def _said(self, role: str, text: str) -> dict[str, Any]:
        return conversation([{"role": role, "content": text}], self.media, markdown=self.question.markdown)[0]

    def _candidate(self, reply: Reply) -> dict[str, Any]:
        done = reply.state == "done"
        return {
            "html": rendered(reply.text, markdown=self.question.markdown),
            "cut": done and reply.why == "length",
            "empty": done and not reply.text.strip(),
        }

    # -- what a person does

    def say(self, who: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Say something, and have the replies begun. The same message again changes nothing, or asks anew for replies that failed.

        Raises Wrong for what is not a message, and for one that has no place in the conversation.
        """
        text, number = body.get("text"), body.get("number")
        if not isinstance(text, str) or not text.strip():
            raise Wrong("`text` is not a message", 422)
        if len(text) > LONGEST:
            raise Wrong(f"the message has {len(text)} characters; the most are {LONGEST}", 422)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Wrong("`text` is not a message", 422) from None
        talk = self._talk(who, body.get("session"))
        with talk.lock:
            if number != talk.number:
                raise Wrong("the conversation has gone on meanwhile, perhaps in another tab", 409)
            if talk.turn is not None and talk.turn.asked != text:
                raise Wrong("judge the replies first, or take the message back", 409)
            if talk.turn is None or any(reply.state == "failed" for reply in talk.turn.replies):
                if not self.rate.take(who):
                    raise Wrong("that was fast; wait a moment, then send it again", 429)
                self._write(who, talk, text)
            return self.shown(who, talk.session, turn_alone=True)

    def _write(self, who: str, talk: _Talk, text: str) -> None:
        """Begin the replies of a turn; of one whose replies failed, those alone."""
        for other in self._of(who):
            if other is not talk and other.turn:
                self._stop(other.turn)
        messages = [*talk.messages, {"role": "user", "content": text}]
        turn = talk.turn or _Turn(text, [], [self._seed(who, talk, place) for place in range(len(self.writing))])
        turn.replies = [
            turn.replies[place]
            if turn.replies and turn.replies[place].state != "failed"
            else writer.write(messages, turn.seeds[place])
            for place, writer in enumerate(self.writing)
        ]
        talk.turn = turn

    def take_back(self, who: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take the last message back, and write its replies no further."""
        talk = self._talk(who, body.get("session"))
        with talk.lock:
            if talk.turn is not None and body.get("number") == talk.number:
                self._stop(talk.turn)
                talk.turn = None
            return self.shown(who, talk.session)

    def judge(self, who: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Store a judgement, by which the conversation goes on; it is on the disk when this returns.

        Of equal replies, of two bad ones and where the person skips, the one that was shown first goes on. Raises Wrong for
        anything else than a judgement of the replies that wait, or of the last ones that were judged.
        """
        given = given_in(body)
        talk = self._talk(who, body.get("session"))
        name = f"{who}/{given.number}"
        with talk.lock:
            if name in talk.ids:  # it was sent before, and the reply did not arrive
                return {"stored": True, **self.shown(who, talk.session)}
            if given.replaces is None:
                made = self._new(who, talk, body.get("number"))
            elif talk.judged is not None and given.replaces == talk.judged.id:
                made = self._again(talk.judged)
            else:
                raise Wrong("that judgement was changed meanwhile, perhaps in another tab", 409)
            item, order, about = made
            events = events_of(
                item,
                self._asked_about(item.candidates),
                order,
                who,
                given,
                name,
                source=self.source,
                extra={**self.extra, "chat": about},
            )
            about["continues"] = _continues(events[0].answer, order)
            events = [event.model_copy(update={"extra": {**self.extra, "chat": about}}) for event in events]
            stored(self.store, events)
            if given.replaces is not None and talk.turn is not None:
                self._stop(talk.turn)
            self._took(talk, events)
            return {"stored": True, **self.shown(who, talk.session)}

    def _new(self, who: str, talk: _Talk, number: Any) -> tuple[Item, tuple[int, ...], dict[str, Any]]:
        turn = talk.turn
        if turn is None or number != talk.number or any(reply.state != "done" for reply in turn.replies):
            raise Wrong("there are no replies to judge; load the page again", 409)
        candidates = [Candidate(text=reply.text, by=reply.by) for reply in turn.replies]
        sampling = {key: value for key, value in self.writing[0].options.items() if key != "device"}
        about = {
            "session": talk.session,
            "turn": talk.number,
            "seeds": turn.seeds,
            "ended": [reply.why for reply in turn.replies],
            "sampling": sampling,
        }
        prompt = (*map(dict, talk.messages), {"role": "user", "content": turn.asked})
        item = Item(prompt=prompt, candidates=tuple(candidates))
        return item, self._order(who, talk.session, talk.number), about

    @staticmethod
    def _again(event: Event) -> tuple[Item, tuple[int, ...], dict[str, Any]]:
        item = Item(id=event.item, prompt=event.prompt, candidates=event.candidates)
        return item, event.shown, dict(event.extra["chat"])

    def forget(self, who: str) -> None:
        """Drop what is remembered of a person."""
        with self._lock:
            for key in [key for key in self._talks if key[0] == who]:
                if turn := self._talks.pop(key).turn:
                    self._stop(turn)

    # -- conversations

    def _talk(self, who: str, session: Any) -> _Talk:
        """A conversation of a person, from memory or from the store."""
        if not isinstance(session, str) or not SESSION.fullmatch(session):
            raise Wrong("`session` is not the name of a conversation: 32 digits and letters from a to f", 422)
        with self._lock:
            talk = self._talks.get((who, session))
        if talk is None:
            talk = _Talk(session, list(self.begins))
            mine = [event for event in self._events(who) if event.extra["chat"].get("session") == session]
            if mine:
                self._took(talk, mine)
            with self._lock:
                talk = self._talks.setdefault((who, session), talk)
                here = [key for key in self._talks if key[0] == who]
                for key in here[:-MOST]:
                    if old := self._talks.pop(key).turn:
                        self._stop(old)
        with self._lock:
            self._talks.move_to_end((who, session))
        return talk

    def _last(self, who: str) -> str:
        """The conversation in which a person judged last; a new name where there is none."""
        known = self._of(who)
        if known:
            return known[-1].session
        events = self._events(who)
        return str(events[-1].extra["chat"]["session"]) if events else secrets.token_hex(16)

    def _of(self, who: str) -> list[_Talk]:
        with self._lock:
            return [talk for (name, _), talk in self._talks.items() if name == who]

    def _events(self, who: str) -> list[Event]:
        """A person's judgements of replies, with their comments."""
        found = self.store.events(annotator=who)
        return [
            event
            for event in found
            if event.shown and isinstance(about := event.extra.get("chat"), Mapping) and about.keys() >= ABOUT
        ]

    @staticmethod
    def _took(talk: _Talk, events: Sequence[Event]) -> None:
        """Go on from the newest judgement among these."""
        talk.ids |= {event.id for event in events}
        judged = [event for event in newest(events) if not isinstance(event.answer, Comment)]
        event = max(judged, key=lambda one: int(one.extra["chat"]["turn"]))
        comments = (
            one.answer.text for one in events if isinstance(one.answer, Comment) and one.id == f"{event.id}/comment"
        )
        about = event.extra["chat"]
        said = {"role": "assistant", "content": event.candidates[about["continues"]].text}
        talk.messages = [*list[Any](event.prompt), said]
        talk.number, talk.turn, talk.judged, talk.comment = about["turn"] + 1, None, event, next(comments, "")

    def _stop(self, turn: _Turn) -> None:
        for writer, reply in zip(self.writing, turn.replies):
            writer.stop(reply)

    def _order(self, who: str, session: str, number: int) -> tuple[int, ...]:
        return order_of(self.secret, f"{session}/{number}", who, len(self.writing))

    def _seed(self, who: str, talk: _Talk, place: int) -> int:
        name = f"seed {talk.session} {talk.number} {place}\0{who}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hmac.digest(self.secret, name, "sha256")[:4], "big")


def _continues(answer: Any, order: Sequence[int]) -> int:
    """The candidate by which a conversation goes on."""
    if isinstance(answer, Skip):
        return order[0]
    better = getattr(answer, "better", None)
    return better if isinstance(better, int) else order[0]
