"""What a text has so far, and what that changes in the logits of its next token: penalties and a minimum length.

In this order, before the temperature, as in vLLM: the repetition penalty (CTRL, Keskar et al. 2019, §4.1; as in transformers) for
tokens of the prompt and the answer, the frequency and presence penalties (as OpenAI's API defines them) for tokens of the answer, and
no ending token before the minimum length. Decoding and the statistics of training call `penalised` with the same tokens, so that
log-probs and ratios are of one distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hookline.batch.sampling import Sampling
from hookline.batch.stages import Batch

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from hookline.batch.lazily import torch

__all__ = ["Seen", "penalised", "seen_before"]


@dataclass(frozen=True, eq=False)
class Seen:
    """Pairs of a text and a token that it has. Where a gradient is needed, each pair occurs once."""

    row: Tensor
    """The text of each pair, int64 [M]; or [N, L], as the others."""
    id: Tensor
    """The token, int64 [M]."""
    count: Tensor
    """How often the answer has the token so far, int64 [M]; 0 for a token of the prompt alone."""


def penalised(logits_NV: Tensor, sampling: Sampling, seen: Seen, short_N: Tensor, ends: Sequence[int]) -> Tensor:
    """The logits [N, V] of the next token of N texts, as a new tensor. short_N: texts whose answer may not end yet, bool [N]."""
    made_NV = logits_NV.clone()
    if sampling.penalises:
        found = logits_NV[seen.row, seen.id]
        share = sampling.repetition_penalty
        found = torch.where(found < 0, found * share, found / share)
        price = seen.count * sampling.frequency_penalty + (seen.count > 0) * sampling.presence_penalty
        made_NV[seen.row, seen.id] = found - price.to(found.dtype)
    if sampling.min_new_tokens:
        column_E = torch.tensor(ends, device=logits_NV.device)
        made_NV[:, column_E] = made_NV[:, column_E].masked_fill(short_N[:, None], -torch.inf)
    return made_NV


def seen_before(batch: Batch, rows_N: Tensor, at_N: Tensor, sampling: Sampling, V: int) -> Seen:
    """What the texts before N tokens of a batch have. rows_N, at_N: the row of each token, and its place in the response."""
    texts_N = torch.arange(len(rows_N), device=rows_N.device)

    def pairs(ids_BL: Tensor, length_N: Tensor) -> Tensor:
        inside_NL = torch.arange(ids_BL.shape[1], device=ids_BL.device) < length_N[:, None]
        return (texts_N[:, None] * V + ids_BL[rows_N])[inside_NL]

    answer = pairs(batch.token_ids_BT, at_N)
    prompt = pairs(batch.prompt_ids_BP, batch.prompt_length_B[rows_N]) if sampling.repetition_penalty != 1 else answer[:0]
    pair_M, which = torch.unique(torch.cat([answer, prompt]), return_inverse=True)
    return Seen(pair_M // V, pair_M % V, torch.bincount(which[: len(answer)], minlength=len(pair_M)))
