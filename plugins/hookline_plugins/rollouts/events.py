"""Rows of judgements: which event a row holds, the tokens of its answers and their places in the text, and which rows count."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from hookline import Correction, DataError, Encoded, Encoder, Event, settled_rows
from hookline_plugins.splits import Split, in_split

__all__ = ["PAIR", "answer_of", "event_of", "text_of", "token_places", "wanted"]

PAIR = ("chosen", "rejected")
"""The fields of a row that is a comparison without an event."""


def wanted(records: Sequence[Any], split: Split, without: Collection[str] = ()) -> list[int]:
    """The rows of a split that count: without what was superseded, and of decided questions the decision alone.

    without: annotators who are left out, with their decisions. Raises DataError if one of them gave no answer.
    """
    if without:
        names = {str(record.get("annotator") or "unknown") for record in records}
        if unknown := next((name for name in without if name not in names), None):
            raise DataError(
                f"'{unknown}' is left out by `without`, but gave no answer", f"annotators: {', '.join(sorted(names)[:20])}"
            )
    return [
        i
        for i in settled_rows(records)
        if in_split(records[i], split) and str(records[i].get("annotator") or "unknown") not in without
    ]


def event_of(record: Any, where: str) -> Event | None:
    """The event that a row holds; None for a row with `chosen` and `rejected`. Earlier releases wrote a `ranking` of answers."""
    if "answer" in record and "candidates" in record:
        return Event.read(record, where)
    if "ranking" not in record:
        return None
    ranking = record["ranking"]
    if not isinstance(ranking, list) or len(ranking) < 2 or not all(isinstance(answer, dict) for answer in ranking):
        raise DataError(f"{where}: 'ranking' is not a list of two or more answers", "rank at least two")
    kept = ("text", "token_ids", "sample", "gold")
    values = {
        "prompt": str(record.get("prompt", "")),
        "prompt_ids": record.get("prompt_ids"),
        "candidates": [
            {**({"text": ""} if "token_ids" in answer else {}), **{key: answer[key] for key in kept if key in answer}}
            for answer in ranking
        ],
        "answer": {"kind": "ranking", "order": [[i] for i in range(len(ranking))]},
        "annotator": record.get("annotator") or "unknown",
    }
    return Event.read(values, where)


def text_of(event: Event, i: int) -> str:
    """The text of a candidate; of the number after the last, what a correction made of one."""
    if isinstance(event.answer, Correction) and i >= len(event.candidates):
        return event.answer.text
    return event.candidates[i].text


def answer_of(ctx: Encoder, event: Event, i: int, record: Any, how: Any) -> Encoded:
    """One answer of an event, with exactly the tokens that were sampled if it has them."""
    where = how["where"]
    ids = event.candidates[i].token_ids if i < len(event.candidates) else None
    for name, found in (("prompt_ids", event.prompt_ids), ("token_ids", ids)):
        if found is not None and not (found and all(0 <= one < ctx.tokenizer.vocabulary for one in found)):
            raise DataError(
                f"{where}: its {name} are not ids of this tokenizer", "leave them out: the texts are read then"
            )
    if ids is not None and event.prompt_ids is not None:
        return _fitted(Encoded(prompt_ids=list(event.prompt_ids), answer_ids=list(ids), record=record), how)
    spoken = event.candidates[i].messages if i < len(event.candidates) else None
    said: Any = text_of(event, i) if spoken is None else list(spoken)
    prompt: Any = event.prompt if isinstance(event.prompt, str) else list(event.prompt)
    if isinstance(prompt, str) and spoken is not None:
        prompt = [{"role": "user", "content": prompt}] if prompt else None
    made = ctx.encode({**event.record, "prompt": prompt, "candidate": said}, answer="candidate", where=where)
    prompt_ids: Sequence[int] = made.prompt_ids if event.prompt_ids is None else list(event.prompt_ids)
    return _fitted(replace(made, prompt_ids=prompt_ids, record=record), how)


def _fitted(answer: Encoded, how: Any) -> Encoded:
    """An answer with as many tokens as there is room for, whether it was sampled or written."""
    longest = how["longest"]
    if longest is None or len(answer) <= longest or how["overlong"] == "leave-out":
        return answer
    if how["overlong"] == "truncate":
        return answer.cut(longest)
    raise DataError(
        f"{how['where']}: its prompt and answer have {len(answer)} tokens, there is room for {longest}",
        "shorten it, build a longer context, or set `overlong: leave-out`",
    )


def token_places(ctx: Encoder, ids: Sequence[int], text: str, where: str, cut: bool = False) -> list[tuple[int, int]]:
    """Where each token begins and ends in the text, in code points; an ending token is empty and part of no span.

    A token that holds some bytes of a character has the whole character. cut: the end of the text may be missing. A token is
    decoded behind the one before it, on which spaces depend, so that the time is proportional to the length.
    """
    decode, places = ctx.tokenizer.decode, []
    before, first, known = 0, 0, ""  # ids[before:first] are `known`, which ends at `end`
    start = end = 0
    for n, token in enumerate(ids):
        said = decode(ids[before : n + 1])[len(known) :]
        whole = said.rstrip(PART)
        if text.startswith(said, end):
            if said:
                before, known = first, decode(ids[first : n + 1])
                end += len(said)
            elif decode([token]):
                start = end - 1
            first = n + 1
            places.append((start, end))
            start = end
        elif text.startswith(whole, end):
            places.append((start, end + len(whole) + 1))
            start = end + len(whole)
        else:
            break
    if len(places) < len(ids) or not places or (end < len(text) and not cut):
        raise DataError(
            f"{where}: the tokens of the answer are not its text, so its spans have no place among them",
            "leave out `token_ids`, or use the tokenizer that they are of",
        )
    return places


PART = "\ufffd"
"""What a decoder writes for some bytes of a character."""
