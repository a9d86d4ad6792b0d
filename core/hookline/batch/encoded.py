"""A record as tokens: one row from a tokenizer, a dataset or a played episode, before rows become a batch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from hookline.batch.lazily import torch

__all__ = ["Encoded", "Record", "learned", "own", "stacked"]

Record = Mapping[str, Any]
"""One row of a dataset, as its file or task returned it: keywords, reference answer, tests, …"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """One row as tokens. `ctx.encode` returns it, and `Rollout.build` makes a batch from several."""

    prompt_ids: Sequence[int]
    """Token ids of the prompt, at least one."""
    answer_ids: Sequence[int] = ()
    """Token ids of the response; empty if the answer has not been drawn yet."""
    learn: Sequence[bool] | None = None
    """Whether each answer token is learned, i.e. whether it is in the mask. None: all tokens are learned."""
    record: Record = field(default_factory=dict)
    """The dataset row from which this was encoded."""
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    """Extra columns of this row, by the name of the batch column: `NAME_B` [...], `NAME_BT` [answer tokens, ...],
    `NAME_BP` [prompt tokens, ...]."""

    def __len__(self) -> int:
        """The number of tokens of prompt and answer together."""
        return len(self.prompt_ids) + len(self.answer_ids)

    def cut(self, longest: int) -> Encoded:
        """The row with at most `longest` tokens: without the end of the answer, or, where there is none, without the start of
        the prompt. Unchanged if nothing to learn would be left."""
        over = len(self) - longest
        if over <= 0:
            return self
        if not self.answer_ids:
            return replace(self, prompt_ids=self.prompt_ids[over:]) if longest > 0 else self
        kept = len(self.answer_ids) - over
        learn = None if self.learn is None else self.learn[:kept]
        if kept <= 0 or (learn is not None and not any(learn)):
            return self
        columns = {name: value[:kept] if name.endswith("_BT") else value for name, value in self.columns.items()}
        return replace(self, answer_ids=self.answer_ids[:kept], learn=learn, columns=columns)


PLAIN = frozenset({str, int, float, bool, type(None)})


def own(record: Record) -> Record:
    """A copy of a record, with what it holds, for one batch: what is changed there does not reach the dataset."""
    try:
        return cast(Record, _copied(record))
    except Exception:  # something that a format made and that cannot be copied
        return dict(record)


def _copied(value: Any) -> Any:
    """A deep copy; what JSON has without the bookkeeping of `copy.deepcopy`, which takes three times as long."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is dict:
        return {key: _copied(one) for key, one in value.items()}
    if kind is list:
        return [_copied(one) for one in value]
    return copy.deepcopy(value)


def learned(rows: Sequence[Encoded], length_B: Tensor, width: int) -> Tensor:
    """Which answer tokens are learned, bool [B, width]."""
    mask_BT = torch.arange(width) < length_B[:, None]
    for row, encoded in enumerate(rows):
        if encoded.learn is not None:
            if len(encoded.learn) != len(encoded.answer_ids):
                raise ValueError(
                    f"row {row}: {len(encoded.learn)} values of learn for {len(encoded.answer_ids)} tokens"
                )
            mask_BT[row, : len(encoded.learn)] = torch.tensor(encoded.learn, dtype=torch.bool)
    return mask_BT


def stacked(rows: Sequence[Encoded], P: int, T: int) -> dict[str, Tensor]:
    """The extra columns of encoded rows as batch columns [B, ...], [B, T, ...] or [B, P, ...], padded with 0."""
    names = dict.fromkeys(name for row in rows for name in row.columns)
    found = {}
    for name in names:
        values = [row.columns.get(name) for row in rows]
        missing = next((i for i, value in enumerate(values) if value is None), None)
        if missing is not None:
            raise ValueError(f"row {missing} has no column '{name}', but other rows have it")
        width = {"_BT": T, "_BP": P}.get(name[-3:])
        padded = [value if width is None else padded_to(value, width) for value in values if value is not None]
        found[name] = torch.stack(padded)
    return found


def padded_to(value: Tensor, width: int) -> Tensor:
    """[N, ...] → [width, ...], with zeros at the end."""
    return torch.cat([value, value.new_zeros(width - len(value), *value.shape[1:])])
