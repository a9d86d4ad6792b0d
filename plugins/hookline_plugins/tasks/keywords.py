"""Write a sentence that contains the given words. Prompts and reference answers come from the standard library's docs.

A prompt names two words; the answer is a sentence of the documentation that contains both. Whole combinations of keywords are held
out: no training prompt and no training answer contains both words of a held-out combination.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations, pairwise

from pydantic import Field

import hookline
from hookline import Record, Task
from hookline_plugins.tasks.stdlib_docs import docstrings, held_out

WORD = re.compile(r"[a-z_']+")
SENTENCE = re.compile(r"[A-Z][A-Za-z0-9 ,'`()\-/_\"]*\.")
NOT_PROSE = re.compile(r"^\s*(>>>|\.\.\.|[-*+|])", re.MULTILINE)
STOP = frozenset(
    """the for and this with that from are not all will can when which any use may should only also its then has have into
    like other one each you was but does after there more than these they most been some just where both same self see non
    two instead before without between using used given must being such itself let how him our own new return returns
    returned called specified current""".split()
)


class Keywords(Task):
    """Splits `train` and `heldout` (only prompts), `sentences` and `sentences-heldout` (prompts with completions).

    Rows have `prompt`, `keywords`, and in the sentence splits `completion`.
    """

    splits = ("train", "heldout", "sentences", "sentences-heldout")

    class Config(hookline.Config):
        keywords: int = Field(16, ge=4)
        """Number of frequent words that the prompts of `train` and `heldout` use. Fewer words are learned sooner."""
        known: int = Field(200, ge=4)
        """Number of frequent words that the prompts of the sentence splits use."""
        per_prompt: int = Field(2, ge=1, le=4)
        """Number of words in a prompt."""
        shortest: int = Field(5, ge=1)
        """Minimum number of words in a sentence."""
        longest: int = Field(12, ge=1)
        """Maximum number of words in a sentence."""

    def rows(self, split: str) -> Sequence[Record]:
        if split in ("train", "heldout"):
            return [ask(order) for words in self._combinations[split == "heldout"] for order in (words, words[::-1])]
        return list(self._with_sentences(split == "sentences-heldout"))

    @cached_property
    def _sentences(self) -> tuple[list[str], list[str]]:
        """(train, held out), each sorted; no sentence is in both."""
        found: tuple[set[str], set[str]] = (set(), set())
        for _, text in docstrings():
            found[held_out(text)].update(sentences(text, self.config.shortest, self.config.longest))
        return sorted(found[0]), sorted(found[1] - found[0])

    @cached_property
    def _frequent(self) -> list[str]:
        """Words by the number of training sentences that contain them."""
        counts = Counter(w for s in self._sentences[0] for w in set(words_of(s)) if len(w) > 2 and w not in STOP)
        return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]

    @cached_property
    def _combinations(self) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        """(train, held out): about a fifth of all combinations of keywords is held out."""
        every = list(combinations(sorted(self._frequent[: self.config.keywords]), self.config.per_prompt))
        return [c for c in every if not held_out(" ".join(c), 0.2)], [c for c in every if held_out(" ".join(c), 0.2)]

    def _with_sentences(self, heldout: bool) -> Iterator[Record]:
        """Each sentence with a few selections of its words. The selection depends only on the sentence."""
        known, keywords = set(self._frequent[: self.config.known]), set(self._frequent[: self.config.keywords])
        kept_back = set(self._combinations[1])
        for sentence in self._sentences[heldout]:
            held = sorted(set(words_of(sentence)) & keywords)
            if not heldout and any(c in kept_back for c in combinations(held, self.config.per_prompt)):
                continue
            usable = [w for w in dict.fromkeys(words_of(sentence)) if w in known]
            draw = random.Random(sentence)
            size = min(len(usable), self.config.per_prompt)
            chosen = {tuple(draw.sample(usable, size)) for _ in range(1 if heldout else 2)} if usable else set()
            for words in sorted(chosen):
                yield {**ask(words), "completion": sentence}


def ask(words: Sequence[str]) -> dict[str, object]:
    """A prompt for some words."""
    return {"prompt": "Words: " + ", ".join(words), "keywords": list(words)}


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, in order."""
    return WORD.findall(text.lower())


def sentences(text: str, shortest: int, longest: int) -> Iterator[str]:
    """Plain sentences of a docstring: no examples, no lists, a capital at the start and a full stop at the end."""
    for paragraph in re.split(r"\n\s*\n", text):
        if NOT_PROSE.search(paragraph):
            continue
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
            if SENTENCE.fullmatch(sentence) and shortest <= len(words_of(sentence)) <= longest:
                yield sentence


def phrases() -> frozenset[tuple[str, str]]:
    """Every pair of neighbouring words in the training documentation."""
    return frozenset(pair for _, text in docstrings() if not held_out(text) for pair in pairwise(words_of(text)))
