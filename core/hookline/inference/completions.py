"""Answers of one draw, side by side: what `ctx.draw` gives, joined from what an engine said of each sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from hookline.batch.stages import Behaviour, KeptIds, Sampling
from hookline.contract.engine import Completion, Completions
from hookline.errors import PluginError

__all__ = ["join"]


def join(found: Sequence[Completion], sampling: Sampling, who: str) -> Completions:
    """One block of all answers, in order. Log-probs that an engine did not give are 0.

    who: the engine, for the sentence when what it said does not fit together.
    """
    for one in found:
        _check(one, sampling, who)
    lengths = [len(one.token_ids) for one in found]
    length_B = torch.tensor(lengths, dtype=torch.long)
    empty = torch.zeros(0, 0)
    token_ids_BT = pad_sequence([one.token_ids for one in found], True) if found else empty.long()
    shown = [torch.zeros(len(one.token_ids)) if one.logprobs is None else one.logprobs for one in found]
    last_B = torch.stack([one.versions[-1] for one in found]) if found else length_B
    version_BT = pad_sequence([one.versions for one in found], True, -1) if found else empty.long()
    return Completions(
        token_ids_BT,
        length_B,
        tuple(one.finish_reason for one in found),
        Behaviour(
            logprobs_BT=pad_sequence(shown, True) if found else empty,
            version_BT=torch.where(version_BT < 0, last_B[:, None], version_BT),
            sampling=sampling,
            support=_kept(found, token_ids_BT.shape[1]) if sampling.truncated else None,
        ),
    )


def _kept(found: Sequence[Completion], T: int) -> KeptIds:
    """Kept ids of all answers; tokens past an answer's end kept none."""
    supports = [one.kept_ids for one in found if one.kept_ids is not None]
    counts_BT = pad_sequence([kept.offsets.diff() for kept in supports], True) if supports else torch.zeros(0, T).long()
    flat = counts_BT.reshape(-1)
    ids = torch.cat([kept.ids for kept in supports]) if supports else flat
    return KeptIds(ids, torch.cat([flat.new_zeros(1), flat.cumsum(0)]))


def _check(one: Completion, sampling: Sampling, who: str) -> None:
    T = len(one.token_ids)
    if not T:
        raise PluginError(f"{who} gave an answer without a token", "an empty answer is the ending token alone")
    for name, part in (("logprobs", one.logprobs), ("versions", one.versions)):
        if part is not None and len(part) != T:
            raise PluginError(f"{who} gave {len(part)} {name} for {T} tokens", "give one per token")
    if sampling.truncated and (one.kept_ids is None or len(one.kept_ids.offsets) != T + 1):
        raise PluginError(f"{who} did not give, for each token, the ids that top-k/top-p kept", "fill in kept_ids")
