"""Conversations as tokens, through the model's own chat template, with the tokens that each assistant turn chose.

Which tokens of a conversation are an assistant's is found in one of two ways. Where the template marks them (`{% generation %}`) and
each mark ends with a turn's last token, the marks decide. Otherwise the conversation is rendered up to each assistant turn and
through it, and the difference is that turn, as long as the tokens before it stay the same; else the conversation is refused.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

from hookline.contract.encoder import Learn
from hookline.data.messages import Message, is_learned, texts_of, with_texts
from hookline.errors import DataError, nearest
from hookline.tokens.jinja import Endless, names, rendered

__all__ = ["ChatTemplate"]

ALWAYS = {"messages", "add_generation_prompt", "strftime_now"}
"""Names in a template that are not options."""
PROBE = "hookline-probe"
NOTHING: Mapping[str, Any] = {}
LEARN_LESS = "learn from the last turn only (learn: last), or give a template that marks turns with {% generation %}"
BY_TURN = "make a row of each turn, or give a template that leaves earlier turns as they were"


@dataclass(frozen=True)
class _Whole:
    """A rendered conversation, from which the ids of its beginnings are known without encoding them again."""

    text: str
    ids: Sequence[int]
    places: Sequence[tuple[int, int]]


@dataclass
class ChatTemplate:
    """A template, and the tokens of what it renders."""

    text: str
    """The template's source, in Jinja."""
    source: str
    """The file that it is from, for messages."""
    special: Mapping[str, Any]
    """The tokenizer's special tokens, as templates name them: `bos_token`, …"""
    encode: Callable[[str], tuple[list[int], list[tuple[int, int]]]]
    """From a rendered text to ids, and the place of each in the text."""
    ends: Collection[int]
    """Ids that end an answer."""
    control: Collection[int]
    """Ids of all special tokens."""
    shown: Callable[[Sequence[int]], str]
    """From ids to text."""
    token: Callable[[int], str]
    """From an id to its token."""
    for_tools: str = ""
    """The template for conversations with tools, if the folder has one of its own."""
    clock: datetime | None = None
    """The time that the template sees, the same for a whole run; None: now."""
    replies: Mapping[str, Any] | None = None
    """How answers are read (`response_template` of the folder's tokenizer); None if the folder does not say."""

    def render(
        self, messages: Sequence[Message], where: str, options: Mapping[str, Any] = NOTHING, start: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """A conversation as text, and the places that the template marks as an assistant's.

        options: what the row passes to the template, `tools` too. start: begin the next answer.
        """
        if options.get("tools") and self.for_tools and self.text != self.for_tools:
            self._of_tools.clock = self.clock
            return self._of_tools.render(messages, where, options, start)
        given = {name: value for name, value in options.items() if name != "tools" or value}
        self._check(given, where)
        try:
            return self._rendered([self._as_read(message) for message in messages], start, given)
        except Endless as err:
            raise DataError(f"{where}: {self.source} {err}", "correct its loops, or name another template") from None
        except Exception as err:
            why = " ".join(str(err).split())[:200] or type(err).__name__
            raise DataError(
                f"{where}: {self.source} refuses the conversation: {why}",
                "write the conversation as the template expects it, or name another: tokenizer: {chat_template: FILE}",
            ) from None

    def _rendered(
        self, messages: Sequence[Message], start: bool, options: Mapping[str, Any] = NOTHING
    ) -> tuple[str, list[tuple[int, int]]]:
        given = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": start}
        return rendered(self.text, self.clock, {**given, **self.special, **options})

    @cached_property
    def _of_tools(self) -> ChatTemplate:
        """The template for conversations with tools."""
        return replace(self, text=self.for_tools)

    def _as_read(self, message: Message) -> Message:
        """A message with its text as the template reads it: as text, or in parts. Parts that become text are lines."""
        content = message.get("content")
        texts, parts = self._reads
        if isinstance(content, str) and parts and not texts:
            return {**message, "content": [{"type": "text", "text": content}]}
        if isinstance(content, list) and not parts and all(_is_text(part) for part in content):
            return {**message, "content": "\n".join(part["text"] for part in content)}
        return message

    @cached_property
    def _reads(self) -> tuple[bool, bool]:
        """Whether the template shows a content that is text, and one in parts, found by rendering both."""

        def shows(content: Any) -> bool:
            try:
                text, _ = self._rendered([{"role": "user", "content": content}], False)
            except Endless:
                raise
            except Exception:  # what it refuses it does not read
                return False
            return PROBE in text and not re.search("['\"]text['\"]", text)

        return shows(PROBE), shows([{"type": "text", "text": PROBE}])

    def prompt(self, messages: Sequence[Message], where: str, options: Mapping[str, Any] = NOTHING) -> list[int]:
        """The token ids of a conversation to which the model answers next."""
        return self.encode(self.render(messages, where, options, start=True)[0])[0]

    def opening(self, options: Mapping[str, Any] = NOTHING) -> str:
        """What the template writes before an answer, e.g. the beginning of a thought."""
        asked = [{"role": "user", "content": PROBE}]
        whole, shorter = (self.render(asked, "a probe", options, start=start)[0] for start in (True, False))
        return whole.removeprefix(shorter)

    def turns(
        self,
        messages: Sequence[Message],
        where: str,
        options: Mapping[str, Any] = NOTHING,
        learn: Learn = "all",
        since: int = 0,
    ) -> tuple[list[int], list[bool]]:
        """The token ids of a conversation, and which of them an assistant chose: what it says, and one token that ends it.

        since: the first message from which on turns are learned. Raises DataError if the template does not allow to tell.
        """
        text, marks = self.render(messages, where, options)
        ids, places = self.encode(text)
        whole = _Whole(text, ids, places)
        every = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
        asked = [turn for turn in every if turn >= since and is_learned(messages[turn])][-1 if learn == "last" else 0 :]
        if not asked:
            speakers = ", ".join(dict.fromkeys(str(message["role"]) for message in messages))
            if any(turn >= since for turn in every):
                raise DataError(
                    f"{where} says of every turn of its assistant that it is not learned: `weight: 0` or `train: false`",
                    "leave the row out, or give one of the turns a weight",
                )
            raise DataError(
                f"{where} has no message of an assistant to learn from; who speaks: {speakers}",
                "leave the row out, or say who the assistant is: `roles` in docs/data.md",
            )
        marked = self._marked(ids, places, marks) if len(marks) == len(every) else None
        if marked is None:
            spans = [self._difference(messages, turn, whole, where, options) for turn in asked]
        else:
            spans = [marked[every.index(turn)] for turn in asked]
        chosen = [False] * len(ids)
        for turn, (start, end) in zip(asked, spans):
            inside = next((token for token in ids[start : end - 1] if token in self.ends), None)
            if inside is not None:
                raise DataError(
                    f"{where}: message {turn + 1} holds '{self.token(inside)}', a token that ends answers",
                    "write the text without it",
                )
            if messages[turn].get("tool_calls") and not messages[turn].get("content") and end - start < 2:
                raise DataError(
                    f"{where}: {self.source} leaves out the `tool_calls` of message {turn + 1}, so there is nothing to learn",
                    "give a template that writes calls, or write the call as text",
                )
            if end == start:
                raise DataError(
                    f"{where}: {self.source} writes nothing for message {turn + 1}, so there is nothing to learn",
                    "give a template that writes what an assistant says, or leave the row out",
                )
            chosen[start:end] = [True] * (end - start)
        return ids, chosen

    def finished(
        self,
        messages: Sequence[Message],
        where: str,
        as_text: Callable[[str], Sequence[int]],
        whole: bool,
        options: Mapping[str, Any] = NOTHING,
    ) -> list[int]:
        """The token ids of a conversation after which no more is said; without `whole`, up to the token that ends its last turn.

        What looks like a special token in a message is encoded by `as_text`, and the template's own as tokens.
        """
        said = "".join(texts_of(messages))
        mark = next(sign for sign in map(chr, range(0xE000, 0xF8FF)) if sign not in said)
        found: list[str] = []

        def hidden(match: re.Match[str]) -> str:
            found.append(match[0])
            return f"{mark}{len(found) - 1}{mark}"

        looks = self._looks_special
        shown = with_texts(messages, lambda text: looks.sub(hidden, text)) if looks.search(said) else messages
        text = self.render(shown, where, options)[0]
        if found:
            parts = re.split(f"{mark}([0-9]+){mark}", text)
            ids = [i for n, part in enumerate(parts) for i in (as_text(found[int(part)]) if n % 2 else self.encode(part)[0])]
        else:
            ids = self.encode(text)[0]
        if whole:
            return ids
        after = len(ids)
        while after and (ids[after - 1] in self.control or self._blank(ids[after - 1])):
            after -= 1
        return ids[: after + (self._end_of(ids[after:]) or 0)]

    @cached_property
    def _looks_special(self) -> re.Pattern[str]:
        names = sorted((self.token(token) for token in self.control), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, names)) or "(?!)")

    def following(
        self,
        messages: Sequence[Message],
        turn: int,
        where: str,
        options: Mapping[str, Any] = NOTHING,
        ended: bool = True,
    ) -> list[int]:
        """The ids that the messages after an assistant's turn add behind its last token, up to where it answers next.

        ended: whether the turn's own tokens include the one that ends it; otherwise that comes first.
        """
        text = self.render(messages, where, options, start=True)[0]
        ids, places = self.encode(text)
        start, end = self._difference(messages, turn, _Whole(text, ids, places), where, options, BY_TURN)
        closed = end > start and (ids[end - 1] in self.ends or ids[end - 1] in self.control)
        return ids[end - 1 if closed and not ended else end :]

    def _marked(
        self, ids: Sequence[int], places: Sequence[tuple[int, int]], marks: Sequence[tuple[int, int]]
    ) -> list[tuple[int, int]] | None:
        """The tokens of each mark; None if a mark cuts a token, or does not end with a turn's last token."""
        spans = []
        for start, end in marks:
            # places are in order, so the tokens of a mark are those between two of them
            first = bisect_right(places, start, key=lambda place: place[1])
            last = bisect_left(places, end, key=lambda place: place[0])
            if first >= last or places[first][0] < start or places[last - 1][1] > end:
                return None  # the mark has no token, or a token reaches over it
            stop = self._end_of(ids[first:last])
            if stop is None:
                return None
            spans.append((first, first + stop))
        return spans

    def _difference(
        self,
        messages: Sequence[Message],
        turn: int,
        whole: _Whole,
        where: str,
        options: Mapping[str, Any],
        hint: str = LEARN_LESS,
    ) -> tuple[int, int]:
        """Where a turn stands in a conversation, by rendering the conversation up to the turn and through it."""
        ids = whole.ids
        before = self._beginning(self.render(messages[:turn], where, options, start=True)[0], whole)
        last = turn + 1 == len(messages)
        through = ids if last else self._beginning(self.render(messages[: turn + 1], where, options)[0], whole)
        for shown, longer in ((before, through), (before, ids)):
            at = next((i for i, (a, b) in enumerate(zip(shown, longer)) if a != b), min(len(shown), len(longer)))
            if at < len(shown):
                raise self._unlike(turn, at, where, hint)
        said = through[len(before) :]
        stop = self._end_of(said)
        if stop is None:  # the next speaker's token ends the turn
            follows = ids[len(before) + len(said) :]
            stop = len(said) + 1 if follows and follows[0] in self.ends else len(said)
            said = [*said, *follows[:1]]
        here = ids[len(before) : len(before) + stop]
        unlike = next((i for i, (a, b) in enumerate(zip(said[:stop], here)) if a != b), None)
        if unlike is not None or len(here) < stop:
            raise self._unlike(turn + 1, len(before) + (unlike or 0), where, hint)
        return len(before), len(before) + stop

    def _beginning(self, text: str, whole: _Whole) -> Sequence[int]:
        """The ids of a text. Where it begins a longer one, only what follows its last special token is encoded: text between
        special tokens is encoded by itself."""
        if text == whole.text:
            return whole.ids
        last = bisect_right(whole.places, len(text), key=lambda place: place[1]) if whole.text.startswith(text) else 0
        while last and whole.ids[last - 1] not in self.control:
            last -= 1
        if not last:
            return self.encode(text)[0]
        return [*whole.ids[: last - 1], *self._encoded(text[whole.places[last - 1][0] :])]

    @cached_property
    def _encoded(self) -> Callable[[str], Sequence[int]]:
        """The ids of what begins a turn, which most rows share."""
        return lru_cache(maxsize=1024)(lambda text: self.encode(text)[0])

    def _end_of(self, said: Sequence[int]) -> int | None:
        """How many of a turn's tokens end with its last one: the first that ends an answer, else the first special token,
        after which there is nothing but special tokens and space."""
        for kinds in (self.ends, self.control):
            for at, token in enumerate(said):
                if token in kinds and all(later in self.control or self._blank(later) for later in said[at + 1 :]):
                    return at + 1
        return None

    def _blank(self, token: int) -> bool:
        return not self.shown([token]).strip()

    def _unlike(self, turn: int, at: int, where: str, hint: str) -> DataError:
        return DataError(
            f"{where}: {self.source} renders the tokens before message {turn + 1} in another way once it follows, from token "
            f"{at} on, so what the assistant chose there cannot be told apart",
            hint,
        )

    def _check(self, options: Mapping[str, Any], where: str) -> None:
        """Refuse options that the template does not read, such as a misspelt one."""
        unknown = next((name for name in options if name not in self.options), None)
        if unknown is not None:
            raise DataError(
                f"{where}: {self.source} has no option '{unknown}'{nearest(str(unknown), self.options)}",
                f"it reads: {', '.join(sorted(self.options)) or 'none'}",
            )

    @property
    def options(self) -> set[str]:
        """The names that the template reads besides the conversation."""
        return {*names(self.text), "documents"} - ALWAYS - set(self.special)


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
