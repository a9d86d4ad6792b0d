"""OpenAssistant's trees of messages: a row for each message, or a row for each tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hookline import Candidate, Event, EventFormat, Ranking, Rating, Record
from hookline_plugins.formats.naming import rest

__all__ = ["OpenAssistant", "OpenAssistantTrees"]

CROWD = "volunteers"
"""The annotator of what several volunteers together came to."""
ROLES = {"prompter": "user", "assistant": "assistant"}
Messages = dict[str, dict[str, Any]]


class OpenAssistant(EventFormat):
    """OpenAssistant's messages, those of a tree one after another: replies to one message are ranked, from rank 0, the best.

    Labels from 0 to 1, e.g. `quality`, are ratings of a reply. Replies without a rank have no place. Kept are the messages
    that were ranked or labelled, those beside them, and those before them.
    """

    columns = {"message_id": str, "message_tree_id": str, "text": str, "role": str}
    holds = frozenset({"ranking", "rating"})

    def together(self, row: Record) -> Any:
        return row["message_tree_id"]

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        yield from _events({row["message_id"]: dict(row) for row in rows}, rows[0]["message_tree_id"])

    def key(self, event: Event) -> Any:
        return event.record.get("message_tree_id", event.item)

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        tree = self.key(events[0])
        for message in _ordered(_messages(events)):
            yield {**message, "message_tree_id": tree}


class OpenAssistantTrees(EventFormat):
    """OpenAssistant's trees: a `prompt` with `replies` within replies, ranked and labelled as the messages of `openassistant`."""

    columns = {"message_tree_id": str, "prompt": dict}
    holds = OpenAssistant.holds

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        found: Messages = {}
        _flatten(row["prompt"], None, found)
        for event in _events(found, row["message_tree_id"]):
            yield {**event, "record": {**event["record"], "tree": rest(row, "message_tree_id", "prompt")}}

    def key(self, event: Event) -> Any:
        return event.record.get("message_tree_id", event.item)

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        messages = list(_ordered(_messages(events)))
        nested: Messages = {one["message_id"]: {**one, "replies": []} for one in messages}
        for one in nested.values():
            if one.get("parent_id") in nested:
                nested[one["parent_id"]]["replies"].append(one)
        root = nested[messages[0]["message_id"]]
        yield {**events[0].record.get("tree", {}), "message_tree_id": self.key(events[0]), "prompt": root}


def _flatten(message: Mapping[str, Any], parent: str | None, found: Messages) -> None:
    found[message["message_id"]] = {**rest(message, "replies"), **({"parent_id": parent} if parent else {})}
    for reply in message.get("replies") or ():
        _flatten(reply, message["message_id"], found)


# -- a tree as events


def _events(messages: Messages, tree: str) -> Iterator[dict[str, Any]]:
    """The judgements of the replies to each message."""
    replies: dict[str, list[dict[str, Any]]] = {}
    for one in messages.values():
        if one["role"] not in ROLES:
            raise ValueError(f"message '{one['message_id']}' is of '{one['role']}', not prompter or assistant")
        if one.get("parent_id") in messages:
            replies.setdefault(one["parent_id"], []).append(one)
    for parent, siblings in replies.items():
        path = _path(messages, parent)
        item = {
            "prompt": [{"role": ROLES[one["role"]], "content": one["text"]} for one in path],
            "candidates": [Candidate.of({"role": ROLES[one["role"]], "content": one["text"]}) for one in siblings],
            "annotator": CROWD,
            "record": {"message_tree_id": tree, "path": [_about(one, root=i == 0) for i, one in enumerate(path)]},
        }
        ranks = sorted({one["rank"] for one in siblings if one.get("rank") is not None})
        order = [[i for i, one in enumerate(siblings) if one.get("rank") == rank] for rank in ranks]
        about = [
            _about(one) | ({} if one.get("rank") in ranks else rest(one, *(one.keys() - {"rank"}))) for one in siblings
        ]
        if ranks:
            odd = {} if ranks == list(range(len(ranks))) else {"ranks": ranks}
            yield {**item, "answer": {"kind": "ranking", "order": order}, "extra": {"replies": about, **odd}}
        for place, one in enumerate(siblings):
            marks, how = _labels(one.get("labels"))
            if marks:
                answer = {"kind": "rating", "of": place, "marks": marks, "low": 0, "high": 1, "step": 0}
                yield {**item, "answer": answer, "extra": {"replies": about, **how}}


def _path(messages: Messages, last: str) -> list[dict[str, Any]]:
    """The messages from the root to one."""
    path: list[dict[str, Any]] = []
    at: str | None = last
    while at in messages:
        if len(path) > len(messages):
            raise ValueError(f"message '{last}' is its own ancestor")
        path.insert(0, messages[at])
        at = messages[at].get("parent_id")
    return path


def _labels(labels: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """The labels of a message from 0 to 1, and what else they say: of lists `name`, `value`, `count`, or an object for each."""
    if not isinstance(labels, Mapping):
        return {}, {}
    if isinstance(labels.get("name"), list):
        return dict(zip(labels["name"], labels["value"])), {"lists": rest(labels, "name", "value")}
    return {name: one["value"] for name, one in labels.items()}, {
        "labels": {name: rest(one, "value") for name, one in labels.items()}
    }


def _about(message: Mapping[str, Any], root: bool = False) -> dict[str, Any]:
    """What a message has beside what events about it hold. root: it does not reply to another, so events are about its replies only."""
    return rest(message, "text", "role", "message_tree_id", *(() if root else ("rank", "labels", "parent_id")))


# -- events as messages


def _messages(events: Iterable[Event]) -> Messages:
    found: Messages = {}
    for event in events:
        known = event.record.get("path") or []
        parent: str | None = None
        for number, turn in enumerate(_turns(event)):
            about = known[number] if number < len(known) else {"message_id": f"{event.item}-{number}"}
            parent = _put(found, about, parent, turn)
        default = [{"message_id": f"{parent}-{i}"} for i in range(len(event.candidates))]
        replies = [
            found[_put(found, about, parent, turn)]
            for about, one in zip(event.extra.get("replies") or default, event.candidates)
            for turn in one.said(as_messages=True)
        ]
        if len(replies) != len(event.candidates):
            raise ValueError("an answer is several messages, and the format has one")
        _judge(event, replies)
    return found


def _put(found: Messages, about: Mapping[str, Any], parent: str | None, turn: Mapping[str, Any]) -> str:
    """Keep a message, and answer its id."""
    names = {role: name for name, role in ROLES.items()}
    if turn.get("role") not in names or not isinstance(turn.get("content"), str):
        raise ValueError("a message is not a text of user or assistant")
    name: str = about["message_id"]
    made = {**({"parent_id": parent} if parent else {}), "role": names[turn["role"]], "text": turn["content"]}
    found[name] = {**found.get(name, {}), **made, **about}
    return name


def _turns(event: Event) -> Sequence[Mapping[str, Any]]:
    return [{"role": "user", "content": event.prompt}] if isinstance(event.prompt, str) else event.prompt


def _judge(event: Event, replies: Sequence[dict[str, Any]]) -> None:
    """Write what an event says into the messages that it is about."""
    answer = event.answer
    if isinstance(answer, Ranking):
        for rank, group in zip(event.extra.get("ranks") or range(len(answer.order)), answer.order):
            for i in group:
                replies[i]["rank"] = rank
    elif isinstance(answer, Rating):
        if (answer.low, answer.high) != (0, 1):
            raise ValueError(f"labels are from 0 to 1, and these are from {answer.low:g} to {answer.high:g}")
        each = event.extra.get("labels")
        lists = {"name": [*answer.marks], "value": [*answer.marks.values()]}
        objects = {name: {"value": mark, **(each or {}).get(name, {})} for name, mark in answer.marks.items()}
        replies[answer.of]["labels"] = {**lists, **event.extra.get("lists", {})} if each is None else objects


def _ordered(messages: Messages) -> Iterator[dict[str, Any]]:
    """Messages, each after the one that it replies to."""
    replies: dict[str | None, list[dict[str, Any]]] = {}
    for one in messages.values():
        parent = one.get("parent_id")
        replies.setdefault(parent if parent in messages else None, []).append(one)
    waiting = list(reversed(replies.get(None, [])))
    while waiting:
        one = waiting.pop()
        yield one
        waiting += reversed(replies.get(one["message_id"], []))
