"""Answers of one draw, side by side: what `ctx.draw` gives, joined from what an engine said of each sample, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hookline.batch.stages import Behaviour, KeptIds, Sampling
from hookline.contract.engine import Completion, Completions
from hookline.errors import PluginError, a, shorten

__all__ = ["Asked", "join"]

ROUNDING = 1e-3
"""How far above 0 a log-prob may come to lie by rounding."""


@dataclass(frozen=True)
class Asked:
    """What an engine was asked for, and its answers are held to."""

    sampling: Sampling
    max_new_tokens: int
    eos: int
    vocabulary: int
    """How many token ids the role has."""
    version: int
    """The weights that `sync` told of at last."""


def join(found: Sequence[Completion], asked: Asked, who: str) -> Completions:
    """One block of all answers, in order. Log-probs that an engine did not give are 0.

    Raises PluginError, naming `who`, for an answer that is not what `Completion` says.
    """
    for one in found:
        _check(one, asked, who)
    lengths = [len(one.token_ids) for one in found]
    length_B = torch.tensor(lengths, dtype=torch.long)
    empty = torch.zeros(0, 0)
    token_ids_BT = pad_sequence([one.token_ids for one in found], True) if found else empty.long()
    shown = [torch.zeros(len(one.token_ids)) if one.logprobs is None else one.logprobs for one in found]
    version_BT = pad_sequence([one.versions for one in found], True, asked.version) if found else empty.long()
    drawn = Completions(
        token_ids_BT,
        length_B,
        tuple(one.finish_reason for one in found),
        Behaviour(
            logprobs_BT=pad_sequence(shown, True) if found else empty,
            version_BT=version_BT,
            sampling=asked.sampling,
            support=_kept(found, token_ids_BT.shape[1]) if asked.sampling.truncated else None,
        ),
    )
    if found:
        _check_block(drawn, asked, who)
    return drawn


def _kept(found: Sequence[Completion], T: int) -> KeptIds:
    """Kept ids of all answers; tokens past an answer's end kept none."""
    supports = [one.kept_ids for one in found if one.kept_ids is not None]
    counts_BT = pad_sequence([kept.offsets.diff() for kept in supports], True) if supports else torch.zeros(0, T).long()
    flat = counts_BT.reshape(-1)
    ids = torch.cat([kept.ids for kept in supports]) if supports else flat
    return KeptIds(ids, torch.cat([flat.new_zeros(1), flat.cumsum(0)]))


def _check(one: Any, asked: Asked, who: str) -> None:
    """The form of one answer, without looking at a single number."""
    if not isinstance(one, Completion):
        raise PluginError(
            f"{who} gave {a(type(one).__name__)}, not a Completion", "return hookline.Completion(…) from draw"
        )
    _check_tensor(one.token_ids, "token_ids", torch.int64, who)
    T = len(one.token_ids)
    if not T:
        raise PluginError(f"{who} gave an answer without a token", "an empty answer is the ending token alone")
    if asked.max_new_tokens < T:
        raise PluginError(f"{who} gave {T} tokens of at most {asked.max_new_tokens}", "stop at max_new_tokens")
    parts = [("versions", one.versions, torch.int64)]
    if one.logprobs is not None:
        parts.append(("logprobs", one.logprobs, torch.float32))
    for name, part, dtype in parts:
        _check_tensor(part, name, dtype, who)
        if len(part) != T:
            raise PluginError(f"{who} gave {len(part)} {name} for {T} tokens", "give one per token")
    if one.logprobs is not None and one.logprobs.requires_grad:
        raise PluginError(f"{who} gave logprobs that carry a gradient", "draw under torch.no_grad()")
    if one.finish_reason not in ("stop", "length"):
        said = shorten(repr(one.finish_reason))
        raise PluginError(f"{who} gave the finish_reason {said}", "say 'stop' or 'length'")
    if asked.sampling.truncated:
        kept = one.kept_ids
        if kept is None:
            raise PluginError(f"{who} did not give, for each token, the ids that top-k/top-p kept", "fill in kept_ids")
        if not isinstance(kept, KeptIds):
            raise PluginError(f"{who} gave {a(type(kept).__name__)} as kept_ids", "give a hookline.KeptIds")
        _check_tensor(kept.ids, "kept_ids.ids", torch.int64, who)
        _check_tensor(kept.offsets, "kept_ids.offsets", torch.int64, who)
        if len(kept.offsets) != T + 1 or int(kept.offsets[0]) != 0 or int(kept.offsets[-1]) != len(kept.ids):
            raise PluginError(
                f"{who} gave kept_ids whose offsets do not cover {T} tokens and {len(kept.ids)} ids",
                "begin with 0, then say where each token's ids end",
            )


def _check_tensor(part: Any, name: str, dtype: torch.dtype, who: str) -> None:
    if not isinstance(part, Tensor):
        raise PluginError(f"{who} gave {a(type(part).__name__)} as {name}", f"give a tensor [T], {dtype}")
    if part.dim() != 1 or part.dtype != dtype or part.device.type != "cpu":
        said = f"{list(part.shape)}, {part.dtype}, on {part.device}"
        raise PluginError(f"{who} gave {name} of {said}", f"give a tensor [T], {dtype}, on the CPU")


def _check_block(drawn: Completions, asked: Asked, who: str) -> None:
    """The numbers of all answers at once."""
    ids_BT, length_B, behaviour = drawn.token_ids_BT, drawn.length_B, drawn.behaviour
    inside_BT = torch.arange(ids_BT.shape[1]) < length_B[:, None]
    bad_BT = (ids_BT < 0) | (ids_BT >= asked.vocabulary)
    _refuse(bad_BT, ids_BT, who, "token id", f"there are {asked.vocabulary}, from 0")
    logprobs_BT = behaviour.logprobs_BT
    bad_BT = ~(torch.isfinite(logprobs_BT) & (logprobs_BT <= ROUNDING))
    _refuse(bad_BT, logprobs_BT, who, "log-prob", "a log-prob is finite and at most 0")
    bad_BT = (behaviour.version_BT < 0) | (behaviour.version_BT > asked.version)
    hint = f"set versions to what sync() told, here at most {asked.version}"
    _refuse(bad_BT, behaviour.version_BT, who, "version", hint)
    stopped_B = torch.tensor([reason == "stop" for reason in drawn.finish_reason])
    ends_BT = (ids_BT == asked.eos) & inside_BT
    first_B = torch.where(ends_BT.any(1), ends_BT.int().argmax(1), -1)
    bad_B = stopped_B & (first_B != length_B - 1)
    if bool(bad_B.any()):
        row = int(bad_B.nonzero()[0])
        where = "not in it" if int(first_B[row]) < 0 else f"token {int(first_B[row]) + 1} of {int(length_B[row])}"
        raise PluginError(
            f"{who} gave an answer that ended with 'stop', and the ending token {asked.eos} is {where}",
            "an answer that the model ended has that token last, and once; else say 'length'",
        )
    if behaviour.support is not None:
        _check_kept(behaviour.support, ids_BT, inside_BT, asked, who)


def _refuse(bad_BT: Tensor, found_BT: Tensor, who: str, what: str, hint: str) -> None:
    if bool(bad_BT.any()):
        row, t = bad_BT.nonzero()[0].tolist()
        value = found_BT[row, t].item()
        said = f"{value:g}" if isinstance(value, float) else value
        raise PluginError(f"{who} gave the {what} {said}, for token {t + 1} of an answer", hint)


def _check_kept(support: KeptIds, ids_BT: Tensor, inside_BT: Tensor, asked: Asked, who: str) -> None:
    counts = support.offsets.diff()
    hint = "kept_ids hold, per token, the ids it was drawn from"
    if bool((counts < 0).any()) or bool(((support.ids < 0) | (support.ids >= asked.vocabulary)).any()):
        raise PluginError(f"{who} gave kept_ids with offsets that fall, or ids that there are not", hint)
    owner = torch.arange(len(counts)).repeat_interleave(counts)
    kept = torch.zeros(len(counts), dtype=torch.bool)
    kept[owner[support.ids == ids_BT.reshape(-1)[owner]]] = True
    _refuse(~kept.reshape(ids_BT.shape) & inside_BT, ids_BT, who, "token id", f"its kept_ids lack it: {hint}")
