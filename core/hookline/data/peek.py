"""Reads the first rows of a data name to estimate usual lengths."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from hookline.batch.stages import Record
from hookline.data.formats import by_suffix, format_and_file
from hookline.data.names import is_task
from hookline.data.tasks import task_and_split
from hookline.data.tokenizer import Tokenizer
from hookline.errors import HooklineError
from hookline.registry.offers import Offer

__all__ = ["usual_lengths"]

ROWS = 64


def usual_lengths(name: str, tokenizer: Tokenizer, loose: tuple[Offer, ...] = ()) -> tuple[float, float, int] | None:
    """Usual (tokens of a prompt, tokens of an answer, answers per row) of the first rows; None if they have no
    prompts."""
    try:
        found = list(itertools.islice(_records(name, loose), ROWS))
    except (HooklineError, OSError):
        return None  # the code that needs the rows reports the error
    fields = [("chosen", "rejected") if "chosen" in record else ("completion",) for record in found]
    texts = [[record[key] for key in keys if isinstance(record.get(key), str)] for record, keys in zip(found, fields)]
    prompts = [len(tokenizer.prompt(record["prompt"])) for record in found if isinstance(record.get("prompt"), str)]
    answers = [len(tokenizer.answer(text)) for row in texts for text in row]
    if not prompts:
        return None
    return fmean(prompts), fmean(answers) if answers else 0.0, max(map(len, texts)) or 1


def _records(name: str, loose: tuple[Offer, ...]) -> Iterable[Record]:
    if is_task(name):
        task, split = task_and_split(name, loose)
        return task.rows(split)
    reader, file = format_and_file(name, loose)
    path = Path(file)
    return (reader or by_suffix(path, name, loose)).read(path)
