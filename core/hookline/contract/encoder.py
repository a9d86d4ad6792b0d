"""How rows become token ids: the tokenizer, and `ctx.encode`, as plugins see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from hookline.batch.encoded import Encoded, Record

__all__ = ["Encoder", "Learn", "Overlong", "Tokenizer"]

Learn = Literal["all", "last"]
"""Which turns of an assistant are learned."""
Overlong = Literal["refuse", "leave-out", "truncate"]
"""What happens to a record with more tokens than there is room for."""


class Tokenizer(Protocol):
    """Text to token ids and back. Ids are ints; `bos` begins a text and `eos` ends one."""

    bos: int | None
    """The id of the token that begins a text; None if nothing does."""
    ends: tuple[int, ...]
    """The ids of the tokens that end an answer; the first ends a text."""
    separator: int | None
    """The id of the token between a prompt and its answer; None for tokenizers without one."""
    chat: Any
    """The chat template; None for tokenizers without one."""
    inner: Any
    """The `tokenizers.Tokenizer` itself."""

    @property
    def eos(self) -> int:
        """The id of the token that ends a text."""

    @property
    def vocabulary(self) -> int:
        """One more than the largest token id, i.e. the rows that an embedding needs; ids may have gaps."""

    @property
    def special(self) -> dict[str, int]:
        """`bos_token_id`, `eos_token_id` and `pad_token_id`, as a model's config names them."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens; text that looks like one is encoded as text."""

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each of many texts; faster than calling `encode` for each."""

    def prompt(self, text: str) -> list[int]:
        """Token ids of a prompt as the model sees it: what begins a text, the text, and the separator before the answer."""

    def answer(self, text: str) -> list[int]:
        """Token ids of a response as the model should give it, including the ending token."""

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """The text of token ids; special: with the special tokens, such as those that a chat template writes."""


class Encoder(Protocol):
    """What turns records into tokens."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer. To encode a record, use `encode`."""

    def encode(
        self,
        record: Record,
        *,
        answer: str | None = "completion",
        where: str = "",
        longest: int | None = None,
        new_tokens: int = 0,
        learn: Learn = "all",
        overlong: Overlong = "refuse",
    ) -> Encoded:
        """Encode a record as token ids: its `prompt`, and the answer in the field `answer` (None: no answer yet).

        A record is a conversation if it has `messages` (or `conversations`), or if its `prompt`, or an answer without a prompt,
        is a list of messages. It is rendered by the model's own chat template, with the record's `tools` and
        `chat_template_kwargs`; what the assistant chose is learned: of `all` its turns in the answer, or of the `last` one
        (`learn`).

        where: the position of the record, as `Rows.placed` gives it; error messages begin with it. longest: the maximum
        number of tokens of prompt, answer and the `new_tokens` to be drawn. overlong: what happens to a longer record. `refuse`
        raises DataError; `truncate` leaves out the end of the answer, or of a prompt without an answer the start; `leave-out`
        returns the record as it is, for the rollout to leave out. Check `len(encoded)` with the last two: a prompt that leaves no
        room for its answer is not shortened. Raises DataError for a field that is missing or not text.
        """

    def encode_text(self, record: Record, answer: str, *, where: str = "") -> list[int]:
        """The token ids of a finished text: the `prompt` of a record (or its messages before the answer), and an answer to it.

        This is what a reward model reads. With a chat template, the conversation is rendered as a whole; a plain prompt is then
        a user's message. Without one, the answer follows the prompt, and nothing is added that the tokenizer does not add to
        plain text. Text in a message that looks like a special token is encoded as text. The ids end where the model's score
        is read. where: as in `encode`. Raises DataError for a conversation without a template, and one that the template
        refuses.
        """

    def encode_turn(
        self,
        previous: Sequence[Mapping[str, Any]],
        message: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        record: Record | None = None,
        ended: bool = True,
    ) -> list[int]:
        """The token ids that one more turn adds after what the policy answered: append them to the ids so far.

        previous: the messages so far, ending with the assistant's, which has the text of what was sampled; empty for plain
        text, which adds its own ids alone. message: the new messages, e.g. a tool's result; a text is a user's.
        record: the row that began the episode, whose `tools` and `chat_template_kwargs` the template gets.

        Sampled ids are not encoded again. The conversation is rendered with and without the new messages; the result is
        what comes behind the token that ends the assistant's turn, up to where it answers next. ended: whether that
        token was sampled, as after finish reason `stop`; False for an answer that was cut off: the result then begins
        with it. Where the next speaker's token ends a turn, the sampled one is taken to be that of the new message.

        Raises DataError for a template that renders earlier messages in another way once others follow, e.g. without
        thoughts, and for new messages of an assistant.
        """

    def read_turn(
        self, text: str, *, tools: Sequence[Mapping[str, Any]] = (), record: Record | None = None
    ) -> tuple[dict[str, Any], list[str]]:
        """What a policy answered, as an assistant's message with `content`, `reasoning_content` and `tool_calls`, and the texts of
        calls that cannot be read.

        text: the answer with its special tokens, without the one that ends it. tools: the schemas of the tools, by which
        arguments get their types. record: as in `encode_turn`.

        The model's folder says how answers are read (`response_template` of its tokenizer); without it, a call is JSON between
        `<tool_call>` and `</tool_call>`, as Hermes and Qwen write it, and thoughts end with `</think>`. `arguments` of a call are
        an object, and a call that cannot be read stays in `content`.
        """
