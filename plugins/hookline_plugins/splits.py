"""A split of prompts by a hash, the same for whatever reads the same file: rollouts of judgements and the report on them."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from hookline import DataError, EventFormat, prompt_messages

__all__ = ["Split", "in_split"]

Split = Literal["all", "train", "heldout"]


def in_split(record: Any, split: Split) -> bool:
    """`heldout` are about a tenth of the prompts, chosen by a hash; `train` are the others.

    Raises DataError for a row without a prompt, unless the split is `all`.
    """
    if split == "all":
        return True
    tenth = hashlib.sha256(_asked(record).encode("utf-8", "surrogatepass")).digest()[0] < 26
    return tenth is (split == "heldout")


def _asked(record: Any) -> str:
    """What a row asks, as text: the same for a row and its event, for a text and the one message that has it, and whatever system
    message goes before.

    Whole conversations ask what they have in common.
    """
    prompt = record.get("prompt")
    if prompt is None:
        answers = [record[name] for name in ("chosen", "rejected", "completion") if record.get(name) is not None]
        if answers and all(isinstance(one, list) for one in answers):
            prompt, _ = EventFormat.apart(answers)
    if not prompt and not isinstance(prompt, str):
        raise DataError(
            f"a row has no prompt, by which `split` divides rows; it has {', '.join(map(str, list(record)[:6])) or 'nothing'}",
            "give the rows a `prompt`, or read all of them: split: all",
        )
    if isinstance(prompt, str):
        return prompt
    messages = prompt_messages({"prompt": list(prompt)}) or []
    said = [[one["role"], one.get("content")] for one in messages if one["role"] != "system"]
    if len(said) == 1 and said[0][0] == "user" and isinstance(said[0][1], str):
        return said[0][1]
    return json.dumps(said or messages, sort_keys=True, ensure_ascii=False, default=str)
