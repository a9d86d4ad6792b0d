"""Reads the first rows of a data name to estimate usual lengths."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from hookline.batch.encoded import Encoded
from hookline.batch.stages import Record
from hookline.data.formats import by_suffix, format_and_file
from hookline.data.names import is_task
from hookline.data.tasks import task_and_split
from hookline.errors import HooklineError
from hookline.registry.offers import Offer
from hookline.tokens.encode import encode, is_chat
from hookline.tokens.tokenizer import Tokenizer

__all__ = ["as_seen", "usual_lengths"]

ROWS = 64


def usual_lengths(name: str, tokenizer: Tokenizer, loose: tuple[Offer, ...] = ()) -> tuple[float, float, int] | None:
    """Usual (tokens of a prompt, tokens of an answer, answers per row) of the first rows; None if they have no
    prompts."""
    try:
        found = list(itertools.islice(_records(name, loose), ROWS))
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


def as_seen(name: str, tokenizer: Tokenizer, loose: tuple[Offer, ...] = ()) -> str:
    """The first row of a data name as the model sees it, special tokens included, what is learned in [[ ]]; empty if that
    is not known."""
    try:
        record = next(iter(_records(name, loose)), None)
    except (HooklineError, OSError):
        return ""
    keys = ("chosen", "completion", "messages", None)
    found = None if record is None else next(filter(None, (_encoded(tokenizer, record, key) for key in keys)), None)
    if record is not None and is_chat(record) and (found is None or (not found.answer_ids and "prompt" not in record)):
        try:
            encode(tokenizer, record, answer="chosen" if "chosen" in record else "completion", where="the first row")
        except HooklineError as err:
            return str(err)
    if found is None:
        return ""
    text = tokenizer.decode(found.prompt_ids, special=True)
    learned = found.learn or [True] * len(found.answer_ids)
    for own, some in itertools.groupby(zip(learned, found.answer_ids), key=lambda pair: pair[0]):
        part = tokenizer.decode([token for _, token in some], special=True)
        text += f"[[{part}]]" if own else part
    return text


def _encoded(tokenizer: Tokenizer, record: Record, answer: str | None) -> Encoded | None:
    try:
        return encode(tokenizer, record, answer=answer)
    except (HooklineError, AttributeError, TypeError):
        return None  # the code that needs the row reports the error


def _records(name: str, loose: tuple[Offer, ...]) -> Iterable[Record]:
    if is_task(name):
        task, split = task_and_split(name, loose)
        return task.rows(split)
    reader, file = format_and_file(name, loose)
    path = Path(file)
    return (reader or by_suffix(path, name, loose)).read(path)
