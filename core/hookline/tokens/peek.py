"""Reads the first rows of a data name to estimate usual lengths."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

from hookline.batch.encoded import Encoded
from hookline.batch.stages import Record
from hookline.config.experiment import TokenizerSpec
from hookline.data.sources import Catalogue
from hookline.errors import HooklineError
from hookline.storage.folders import Look, look
from hookline.tokens.encode import answers_of, encode
from hookline.tokens.tokenizer import Tokenizer, choices_of

__all__ = ["pieces", "stand_in", "usual_lengths"]


def usual_lengths(name: str, tokenizer: Tokenizer, catalogue: Catalogue) -> tuple[float, float, int] | None:
    """Usual (tokens of a prompt, tokens of an answer, answers per row) of the first rows; None if they have no
    prompts."""
    try:
        found = [record for _, record in catalogue.first(name)]
    except (HooklineError, OSError):
        return None  # the code that needs the rows reports the error
    rows = [[_encoded(tokenizer, record, name) for name in answers_of(record)] for record in found]
    whole = [[one for one in row if one is not None] for row in rows]
    prompts = [len(row[0].prompt_ids) for row in whole if row]
    answers = [len(one.answer_ids) for row in whole for one in row if one.answer_ids]
    if not prompts:
        return None
    return fmean(prompts), fmean(answers) if answers else 0.0, max(map(len, whole))


def pieces(row: Encoded, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """A row as the model sees it, special tokens included, in pieces of text, each with whether it is learned."""
    learned = [False] * len(row.prompt_ids) + list(row.learn or [True] * len(row.answer_ids))
    grouped = itertools.groupby(zip(learned, [*row.prompt_ids, *row.answer_ids]), key=lambda pair: pair[0])
    return [(tokenizer.decode([token for _, token in some], special=True), own) for own, some in grouped]


def stand_in(spec: TokenizerSpec | None, model: str | None, records: Sequence[Record]) -> Tokenizer:
    """The tokenizer of a folder; for one that is still to be trained, a tokenizer that knows the words of some records."""
    if spec is None or spec.path:
        folder = Path((spec.path if spec else model) or "")
        files = [*sorted(Tokenizer.file(folder).parent.iterdir()), Path((spec and spec.chat_template) or folder)]
        return _loaded(folder, spec, tuple(look(file.stat()) for file in files if file.exists()))
    words = {word for record in records for text in _strings(record) for word in text.split()}
    return Tokenizer.words(sorted(words), len(words) + 2)


@lru_cache(maxsize=4)
def _loaded(folder: Path, spec: TokenizerSpec | None, unchanged: tuple[Look, ...]) -> Tokenizer:
    """unchanged: what tells the files from those of an earlier load."""
    return Tokenizer.load(folder, choices_of(spec))


def _strings(value: Any) -> Iterator[str]:
    """Every text within a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item)


def _encoded(tokenizer: Tokenizer, record: Record, answer: str | None) -> Encoded | None:
    try:
        return encode(tokenizer, record, answer=answer)
    except (HooklineError, AttributeError, TypeError):
        return None  # the code that needs the row reports the error
