"""What functions of verifiers and inspect_ai read, made from a row, without their packages: a state, a parser, a target.

Only what a judge of one finished answer reads is here: the fields of verifiers' `State`, its plain `Parser`, and of inspect_ai's
`TaskState` and `Target` what a scorer usually reads. An attribute that is missing is named in the error of the call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Text = str | Sequence[Mapping[str, Any]]
"""A prompt or an answer: text, or messages."""


class Parser:
    """The answer as it is, as verifiers' own `Parser` gives it. Arguments are text or messages."""

    def parse(self, text: str) -> str:
        return text

    def parse_answer(self, completion: Text) -> str | None:
        """The text, or that of the assistant's last message."""
        if isinstance(completion, str):
            return self.parse(completion)
        said = self.get_assistant_messages(completion)
        return self.parse(str(said[-1].get("content") or "")) if said else None

    def get_assistant_messages(self, completion: Text) -> list[Mapping[str, Any]]:
        return [one for one in completion if isinstance(one, Mapping) and one.get("role") == "assistant"]


def state_of(record: Mapping[str, Any], prompt: Text, completion: Text, answer: Any) -> dict[str, Any]:
    """verifiers' state of a finished answer: the row's columns, and its fields."""
    info, task = record.get("info", {}), record.get("task", "")
    found = {"prompt": prompt, "completion": completion, "answer": answer, "info": info, "task": task}
    return {**record, "input": {**record, **found}, **found, "is_completed": True, "turn": 1}


class Message:
    """One message of inspect_ai's: `role`, `content`, `text`."""

    def __init__(self, role: str, content: str) -> None:
        self.role, self.content, self.text = role, content, content


class Choice:
    """One answer of a model's output."""

    def __init__(self, message: Message) -> None:
        self.message, self.stop_reason = message, "stop"


class Output:
    """A model's output: `completion` is its text."""

    def __init__(self, text: str) -> None:
        self.completion, self.message = text, Message("assistant", text)
        self.choices, self.stop_reason, self.error = [Choice(self.message)], "stop", None

    @property
    def empty(self) -> bool:
        return not self.completion


class TaskState:
    """inspect_ai's state after the answer; `metadata` has the row's columns."""

    def __init__(self, record: Mapping[str, Any], prompt: Text, text: str, target: Target, sample: int) -> None:
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        messages = [Message(str(one.get("role")), str(one.get("content") or "")) for one in asked]
        self.input: str | list[Message] = prompt if isinstance(prompt, str) else messages
        self.messages, self.output = [*messages, Message("assistant", text)], Output(text)
        self.metadata, self.target, self.sample_id = dict(record), target, sample
        self.epoch, self.completed, self.model, self.scores = 1, True, "policy", None
        self.store: dict[str, Any] = {}

    @property
    def user_prompt(self) -> Message:
        """The first message of the user."""
        return next(one for one in self.messages if one.role == "user")

    @property
    def input_text(self) -> str:
        """The input as text: that of its last message of the user."""
        if isinstance(self.input, str):
            return self.input
        return next((one.text for one in reversed(self.input) if one.role == "user"), "")


class Target(list[str]):
    """inspect_ai's target: one text or several; `text` joins them."""

    def __init__(self, target: Any) -> None:
        super().__init__([str(one) for one in target] if isinstance(target, list | tuple) else [str(target)])

    @property
    def target(self) -> list[str]:
        return list(self)

    @property
    def text(self) -> str:
        return "".join(self)


GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
"""inspect_ai's words for correct, partial, incorrect and no answer, as numbers."""


def graded(returned: Any) -> Any:
    """The value of an inspect_ai `Score`, or of several by name: a number for a grade, None where it was not scored."""
    if not (hasattr(returned, "value") and hasattr(returned, "explanation")):
        return returned
    value = returned.value
    if isinstance(value, Mapping):
        return {name: _number(one) for name, one in value.items()}
    return _number(value)


def _number(value: Any) -> Any:
    if isinstance(value, str):
        found = GRADES.get(value, GRADES.get(value.lower()))
        try:
            return float(value) if found is None else found
        except ValueError:
            return value
    return None if isinstance(value, float) and math.isnan(value) else value
