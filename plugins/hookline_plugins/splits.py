"""A split of prompts by a hash, the same for whatever reads the same file: rollouts of judgements and the report on them."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

__all__ = ["Split", "in_split"]

Split = Literal["all", "train", "heldout"]


def in_split(record: Any, split: Split) -> bool:
    """`heldout` are about a tenth of the prompts, chosen by a hash; `train` are the others."""
    if split == "all":
        return True
    tenth = hashlib.sha256(str(record.get("prompt")).encode()).digest()[0] < 26
    return tenth is (split == "heldout")
