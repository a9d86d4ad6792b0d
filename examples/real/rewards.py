"""A reward function of your own: it gets the answers, and the columns of the rows that it names; docs/rewards.md has the forms."""

from __future__ import annotations


def whole_sentence(completions: list[list[dict[str, str]]]) -> list[float]:
    """1 for an answer that is a sentence such as "To open the file.", otherwise 0. As in TRL, an answer to messages is messages."""
    texts = [answer[-1]["content"].strip() for answer in completions]
    return [float(text.startswith("To ") and text.endswith(".")) for text in texts]
