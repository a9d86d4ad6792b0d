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
from hookline.storage.folders import look
from hookline.tokens.encode import encode
from hookline.tokens.tokenizer import Tokenizer, choices_of

__all__ = ["as_seen", "stand_in", "usual_lengths"]


def usual_lengths(name: str, tokenizer: Tokenizer, catalogue: Catalogue) -> tuple[float, float, int] | None:
    """Usual (tokens of a prompt, tokens of an answer, answers per row) of the first rows; None if they have no
    prompts."""
    try:
        found = [record for _, record in catalogue.first(name)]
    except (HooklineError, OSError):
        return None  # the code that needs the rows reports the error
    fields = [("chosen", "rejected") if "chosen" in record else ("completion",) for record in found]
    rows = [[_encoded(tokenizer, record, key) for key in keys] for record, keys in zip(found, fields)]
    whole = [[one for one in row if one is not None] for row in rows]
    prompts = [
        len(one.prompt_ids) for one in (_encoded(tokenizer, record, None) for record in found) if one is not None
    ]
    answers = [len(one.answer_ids) for row in whole for one in row]
    if not prompts:
        return None
    return fmean(prompts), fmean(answers) if answers else 0.0, max(map(len, whole)) or 1


def as_seen(row: Encoded, tokenizer: Tokenizer) -> str:
    """A row as the model sees it, special tokens included, what is learned in [[ ]]."""
    text = tokenizer.decode(row.prompt_ids, special=True)
    learned = row.learn or [True] * len(row.answer_ids)
    for own, some in itertools.groupby(zip(learned, row.answer_ids), key=lambda pair: pair[0]):
        part = tokenizer.decode([token for _, token in some], special=True)
        text += f"[[{part}]]" if own else part
    return text


def stand_in(spec: TokenizerSpec | None, model: str | None, records: Sequence[Record]) -> Tokenizer:
    """The tokenizer of a folder; for one that is still to be trained, a tokenizer that knows the words of some records."""
    if spec is None or spec.path:
        folder = Path((spec.path if spec else model) or "")
        return _loaded(folder, look(Tokenizer.file(folder).stat()), repr(choices_of(spec)), spec)
    words = {word for record in records for text in _strings(record) for word in text.split()}
    return Tokenizer.words(sorted(words), len(words) + 2)


@lru_cache(maxsize=4)
def _loaded(folder: Path, unchanged: object, choices: str, spec: TokenizerSpec | None) -> Tokenizer:
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
