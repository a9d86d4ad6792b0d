"""Write a sentence that contains the given keywords: prompts and reference answers from the standard library's docs."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from pydantic import Field

import hookline
from hookline import Record, Task
from hookline_plugins.tasks.stdlib_docs import docstrings, held_out

WORD = re.compile(r"[a-z]+")
SENTENCE = re.compile(r"[A-Z][A-Za-z0-9 ,'`()\-/_.:;\"=<>]*[.]")
STOP = frozenset(
    [
        "the",
        "and",
        "for",
        "that",
        "this",
        "with",
        "from",
        "are",
        "not",
        "has",
        "have",
        "was",
        "will",
        "can",
        "may",
        "its",
        "into",
        "any",
        "all",
        "but",
        "which",
        "when",
        "then",
        "than",
        "also",
        "you",
        "your",
        "they",
        "them",
        "their",
        "there",
        "these",
        "those",
        "been",
        "being",
        "such",
        "only",
        "each",
        "some",
        "more",
        "most",
        "other",
        "one",
        "two",
        "does",
        "should",
    ]
)


class Keywords(Task):
    """Rows of `prompt` (keywords), `completion` (a sentence that contains them) and `keywords`."""

    splits = ("train", "heldout")

    class Config(hookline.Config):
        vocabulary: int = Field(64, ge=4)
        """How many frequent words serve as keywords. Fewer are learned sooner."""
        keywords: int = Field(3, ge=1)
        """Keywords per prompt, at most."""

    def rows(self, split: str) -> Sequence[Record]:
        return [
            {"prompt": " ".join(words), "completion": sentence, "keywords": list(words)}
            for sentence, words in examples(self.config.vocabulary, self.config.keywords)
            if held_out(sentence, 0.1) == (split == "heldout")
        ]


@cache
def sentences() -> tuple[str, ...]:
    """First sentences of docstrings, of 4 to 20 words, each once."""
    found: dict[str, None] = {}
    for _, text in docstrings():
        summary = " ".join(text.split("\n\n")[0].split())
        first = re.split(r"(?<=[.])\s+(?=[A-Z])", summary)[0]
        if SENTENCE.fullmatch(first) and 4 <= len(first.split()) <= 20:
            found[first] = None
    return tuple(found)


@cache
def examples(vocabulary: int, most: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(sentence, keywords in it); the order of keywords is shuffled by the sentence itself."""
    words = [set(WORD.findall(s.lower())) for s in sentences()]
    counts = Counter(w for found in words for w in found if len(w) > 2 and w not in STOP)
    known = {word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:vocabulary]}
    rows = []
    for sentence, found in zip(sentences(), words):
        usable = sorted(found & known)
        if usable:
            random.Random(sentence).shuffle(usable)
            rows.append((sentence, tuple(usable[:most])))
    return tuple(rows)
