"""One episode of `turns`: what was said, and the rows of tokens that it becomes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hookline import Completions, Context, DataError, Encoded, ExperimentError, Record, Turn
from hookline_plugins.rollouts.played import Played

__all__ = ["Episode", "Row"]

Message = Mapping[str, Any]


@dataclass
class Row:
    """A prompt, and what follows it: the policy's tokens, and those that it read in between."""

    prompt: Sequence[int]
    sample: int = -1
    """The sample id of the first reply."""
    ids: list[int] = field(default_factory=list)
    chosen: list[bool] = field(default_factory=list)
    """Whether the policy chose each token."""
    paid: list[float] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)
    """The ids that top-k/top-p kept, for each token; empty for those that were read."""

    @property
    def so_far(self) -> list[int]:
        """The prompt of the next reply."""
        return [*self.prompt, *self.ids]

    def numbered(self, sample: int) -> None:
        """Give the row the sample id of its first reply."""
        self.sample = sample if self.sample < 0 else self.sample

    def read(self, ids: Sequence[int]) -> None:
        """Add tokens that the policy reads."""
        T = len(ids)
        self.ids += ids
        self.chosen += [False] * T
        self.paid += [0.0] * T
        self.logprobs += [0.0] * T
        self.versions += [0] * T
        self.kept += [torch.zeros(0, dtype=torch.long)] * T

    def say(self, drawn: Completions, at: int) -> list[int]:
        """Add a reply, which is row `at` of what was drawn. Returns its tokens."""
        T = int(drawn.length_B[at])
        said: list[int] = drawn.token_ids_BT[at, :T].tolist()
        how = drawn.behaviour
        self.ids += said
        self.chosen += [True] * T
        self.paid += [0.0] * T
        self.logprobs += how.logprobs_BT[at, :T].tolist()
        self.versions += how.version_BT[at, :T].tolist()
        if how.support is None:
            self.kept += [torch.zeros(0, dtype=torch.long)] * T
        else:
            first = at * drawn.token_ids_BT.shape[1]
            some = how.support.select(torch.arange(first, first + T))
            self.kept += list(torch.split(some.ids, (some.offsets[1:] - some.offsets[:-1]).tolist()))
        return said

    def pay(self, reward: float) -> None:
        """Put a reward on the last token that the policy chose."""
        last = len(self.chosen) - 1 - self.chosen[::-1].index(True)
        self.paid[last] += reward

    def encoded(self, record: Record) -> Encoded:
        columns = {"recorded_BT": self.paid, "logprob_BT": self.logprobs, "version_BT": self.versions}
        return Encoded(
            prompt_ids=self.prompt,
            answer_ids=self.ids,
            learn=self.chosen,
            record=record,
            columns={name: torch.tensor(values, dtype=torch.float32) for name, values in columns.items()},
        )


@dataclass
class Episode:
    """A running episode, and what it has become."""

    played: Played
    record: Record
    sample: int
    """The sample id of the episode, which is that of its first reply."""
    group: int
    messages: list[Message] = field(default_factory=list)
    """The conversation so far; without a chat template, each text is a message too."""
    replies: list[str] = field(default_factory=list)
    rewards: list[dict[str, float]] = field(default_factory=list)
    """The rewards of each reply, by name."""
    rows: list[Row] = field(default_factory=list)
    over: bool = False
    ended: bool = False
    """The episode ended by itself."""
    closed: bool = True
    """The policy ended its last reply itself."""

    @property
    def earned(self) -> float:
        return sum(sum(one.values()) for one in self.rewards)

    def hear(self, turn: Turn) -> None:
        """Pay the reply before a turn, and end the episode if the turn does."""
        if self.replies:
            self.rewards.append(dict(turn.rewards))
            self.rows[-1].pay(turn.reward)
        self.over, self.ended = turn.over, turn.terminated

    def say(self, ctx: Context, drawn: Completions, at: int, ends: Collection[int]) -> str:
        """Add the policy's reply. Returns its text, as the environment reads it."""
        ids = self.rows[-1].say(drawn, at)
        self.closed = drawn.finish_reason[at] == "stop"
        tools = self.played.tools
        text = ctx.tokenizer.decode(ids[:-1] if self.closed and ids[-1] in ends else ids, special=bool(tools))
        self.replies.append(text)
        message: Message = {"role": "assistant", "content": text}
        if tools and ctx.tokenizer.chat is not None:
            message, _ = ctx.read_turn(text, tools=tools, record=self.given)
        self.messages.append(message)
        return text

    @property
    def given(self) -> dict[str, Any]:
        """What the chat template gets besides the conversation."""
        options = self.record.get("chat_template_kwargs")
        tools = self.played.tools
        return {**({"chat_template_kwargs": options} if options else {}), **({"tools": tools} if tools else {})}

    def read(self, ctx: Context, turn: Turn, room: int) -> None:
        """Let the policy read a turn, or cut the episode before it if fewer than `room` tokens do not hold it.

        Raises DataError for a turn that cannot be encoded.
        """
        new, most = self._messages(ctx, turn), ctx.tokenizer.vocabulary - 1
        odd = next((one for one in turn.token_ids or () if one > most), None)
        if odd is not None:
            raise DataError(f"a turn has the token id {odd}, but ids go from 0 to {most}", "give ids of ctx.tokenizer")
        if not self.rows:
            row = Row(self._begun(ctx, turn, new), self.sample)
            if len(row.prompt) > room:
                raise DataError(
                    f"an episode begins with {len(row.prompt)} tokens, and there is room for {room}",
                    "shorten what it says first, lower max_new_tokens, or build the model with a longer context",
                )
            self.rows.append(row)
        else:
            row, ids = self._goes_on(ctx, turn, new)
            if len(row.so_far) + len(ids) > room:
                self.over = True
                return
            row.read(ids)
            if row is not self.rows[-1]:
                self.rows.append(row)
        self.messages += new or [{"role": "user", "content": turn.text or ctx.tokenizer.decode(turn.token_ids or ())}]

    def _messages(self, ctx: Context, turn: Turn) -> list[Message]:
        """A turn as messages; empty for token ids, and for text without a chat template."""
        if ctx.tokenizer.chat is not None:
            return [{"role": "user", "content": turn.text}] if turn.text else list(turn.messages)
        if turn.messages:
            raise ExperimentError(
                f"environment '{self.played.environment.instance}' speaks in messages, but the model's tokenizer has no chat template",
                "name one: tokenizer: {path: …, chat_template: FILE}",
            )
        return []

    def _begun(self, ctx: Context, turn: Turn, new: Sequence[Message]) -> Sequence[int]:
        if turn.token_ids is not None:
            if not turn.token_ids:
                raise DataError("an episode begins with no tokens", "let the environment say something first")
            return list(turn.token_ids)
        chat = ctx.tokenizer.chat
        if new and self.played.tools and "tools" not in chat.text + chat.for_tools:
            raise ExperimentError(
                f"environment '{self.played.environment.instance}' has tools, but {chat.source} does not show tools to the policy",
                "give a template that writes `tools`: tokenizer: {path: …, chat_template: FILE}",
            )
        return ctx.encode({"prompt": new, **self.given} if new else {"prompt": turn.text}, answer=None).prompt_ids

    def _goes_on(self, ctx: Context, turn: Turn, new: Sequence[Message]) -> tuple[Row, Sequence[int]]:
        """The row in which the policy replies next, and the tokens that it reads before; a new row where the template writes
        the conversation so far in another way than it was."""
        row = self.rows[-1]
        if turn.token_ids is not None:
            return row, list(turn.token_ids)
        if not new:
            return row, ctx.encode_turn((), turn.text) if turn.text else []
        try:
            return row, ctx.encode_turn(self.messages, new, record=self.given, ended=self.closed)
        except DataError as err:
            try:
                return Row(ctx.encode({"prompt": [*self.messages, *new], **self.given}, answer=None).prompt_ids), []
            except DataError:
                raise err from None

    def stand_in(self, prompt: Sequence[int]) -> None:
        """A row without a reply, for an episode that failed before it began."""
        self.rows.append(Row(prompt, self.sample))

    def transcript(self, ctx: Context) -> dict[str, Any]:
        """The episode as a row of data: `messages` (and `tools`) of a conversation, or `prompt` and `turns` of plain text."""
        about = {
            "reward": self.earned,
            "rewards": self.rewards,
            "turns_taken": len(self.replies),
            "terminated": self.ended,
        }
        about |= {"sample": self.sample}
        if ctx.tokenizer.chat is not None:
            return {"messages": self.messages, **({"tools": self.played.tools} if self.played.tools else {}), **about}
        said = [str(message["content"]) for message in self.messages]
        shown = [*said[2::2], ""][: len(self.replies)]
        paid = [sum(one.values()) for one in self.rewards]
        return {"prompt": said[0], "turns": [list(one) for one in zip(self.replies, shown, paid)], **about}
