"""What `ctx.draw` returns: the engine's answers to one draw, checked and joined into one block."""

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
"""How far above 0 a log-prob may be, because of rounding."""


@dataclass(frozen=True)
class Asked:
    """What an engine was asked for; its answers are checked against this."""

    sampling: Sampling
    max_new_tokens: int
    ends: tuple[int, ...]
    vocabulary: int
    """The number of token ids of the role."""
    version: int
    """The version of the weights in the last `sync`."""


def join(found: Sequence[Completion], asked: Asked, who: str) -> Completions:
    """Join all answers into one block, in order. Log-probs that the engine did not return are 0.

    Raises a PluginError that names `who` for an answer that breaks the contract of `Completion`.
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
            ends=asked.ends,
        ),
    )
    if found:
        _check_block(drawn, asked, who)
    return drawn


def _kept(found: Sequence[Completion], T: int) -> KeptIds:
    """Kept ids of all answers; positions after an answer's end have none."""
    supports = [one.kept_ids for one in found if one.kept_ids is not None]
    counts_BT = pad_sequence([kept.offsets.diff() for kept in supports], True) if supports else torch.zeros(0, T).long()
    flat = counts_BT.reshape(-1)
    ids = torch.cat([kept.ids for kept in supports]) if supports else flat
    return KeptIds(ids, torch.cat([flat.new_zeros(1), flat.cumsum(0)]))


def _check(one: Any, asked: Asked, who: str) -> None:
    """Check the form of one answer, without its values."""
    if not isinstance(one, Completion):
        raise PluginError(
            f"{who} returned {a(type(one).__name__)}, not a Completion", "return hookline.Completion(…) from draw"
        )
    _check_tensor(one.token_ids, "token_ids", torch.int64, who)
    T = len(one.token_ids)
    if not T:
        raise PluginError(
            f"{who} returned an answer without a token", "return the ending token alone for an empty answer"
        )
    if asked.max_new_tokens < T:
        raise PluginError(
            f"{who} returned {T} tokens, but at most {asked.max_new_tokens} were asked for", "stop at max_new_tokens"
        )
    parts = [("versions", one.versions, torch.int64)]
    if one.logprobs is not None:
        parts.append(("logprobs", one.logprobs, torch.float32))
    for name, part, dtype in parts:
        _check_tensor(part, name, dtype, who)
        if len(part) != T:
            raise PluginError(f"{who} returned {len(part)} {name} for {T} tokens", "return one per token")
    if one.logprobs is not None and one.logprobs.requires_grad:
        raise PluginError(f"{who} returned logprobs that carry a gradient", "draw under torch.no_grad()")
    if one.finish_reason not in ("stop", "length"):
        said = shorten(repr(one.finish_reason))
        raise PluginError(f"{who} returned the finish_reason {said}", "set it to 'stop' or 'length'")
    if asked.sampling.truncated:
        kept = one.kept_ids
        if kept is None:
            raise PluginError(f"{who} did not return the ids that top-k/top-p kept for each token", "set kept_ids")
        if not isinstance(kept, KeptIds):
            raise PluginError(f"{who} returned {a(type(kept).__name__)} as kept_ids", "return a hookline.KeptIds")
        _check_tensor(kept.ids, "kept_ids.ids", torch.int64, who)
        _check_tensor(kept.offsets, "kept_ids.offsets", torch.int64, who)
        if len(kept.offsets) != T + 1 or int(kept.offsets[0]) != 0 or int(kept.offsets[-1]) != len(kept.ids):
            raise PluginError(
                f"{who} returned kept_ids whose offsets do not cover {T} tokens and {len(kept.ids)} ids",
                "begin with 0, then give the end of each token's ids",
            )


def _check_tensor(part: Any, name: str, dtype: torch.dtype, who: str) -> None:
    if not isinstance(part, Tensor):
        raise PluginError(f"{who} returned {a(type(part).__name__)} as {name}", f"return a tensor [T], {dtype}")
    if part.dim() != 1 or part.dtype != dtype or part.device.type != "cpu":
        said = f"{list(part.shape)}, {part.dtype}, on {part.device}"
        raise PluginError(f"{who} returned {name} of {said}", f"return a tensor [T], {dtype}, on the CPU")


def _check_block(drawn: Completions, asked: Asked, who: str) -> None:
    """Check the values of all answers at once."""
    ids_BT, length_B, behaviour = drawn.token_ids_BT, drawn.length_B, drawn.behaviour
    inside_BT = torch.arange(ids_BT.shape[1]) < length_B[:, None]
    bad_BT = (ids_BT < 0) | (ids_BT >= asked.vocabulary)
    _refuse(bad_BT, ids_BT, who, "token id", f"ids go from 0 to {asked.vocabulary - 1}")
    logprobs_BT = behaviour.logprobs_BT
    bad_BT = ~(torch.isfinite(logprobs_BT) & (logprobs_BT <= ROUNDING))
    _refuse(bad_BT, logprobs_BT, who, "log-prob", "a log-prob is finite and at most 0")
    bad_BT = (behaviour.version_BT < 0) | (behaviour.version_BT > asked.version)
    hint = f"set versions to the version passed to sync(), here at most {asked.version}"
    _refuse(bad_BT, behaviour.version_BT, who, "version", hint)
    stopped_B = torch.tensor([reason == "stop" for reason in drawn.finish_reason])
    ends_BT = torch.isin(ids_BT, torch.tensor(asked.ends)) & inside_BT
    first_B = torch.where(ends_BT.any(1), ends_BT.int().argmax(1), -1)
    bad_B = stopped_B & (first_B != length_B - 1)
    if asked.sampling.stop_strings:  # these end an answer too, with whatever token completes them
        bad_B &= first_B >= 0
    if bool(bad_B.any()):
        row = int(bad_B.nonzero()[0])
        where = "not in it" if int(first_B[row]) < 0 else f"token {int(first_B[row]) + 1} of {int(length_B[row])}"
        raise PluginError(
            f"{who} returned an answer with finish_reason 'stop', but its ending token {' or '.join(map(str, asked.ends))} is {where}",
            "that token must come last, and only once; otherwise set finish_reason to 'length'",
        )
    if behaviour.support is not None:
        _check_kept(behaviour.support, ids_BT, inside_BT, asked, who)


def _refuse(bad_BT: Tensor, found_BT: Tensor, who: str, what: str, hint: str) -> None:
    if bool(bad_BT.any()):
        row, t = bad_BT.nonzero()[0].tolist()
        value = found_BT[row, t].item()
        said = f"{value:g}" if isinstance(value, float) else value
        raise PluginError(f"{who} returned the {what} {said} for token {t + 1} of an answer", hint)


def _check_kept(support: KeptIds, ids_BT: Tensor, inside_BT: Tensor, asked: Asked, who: str) -> None:
    counts = support.offsets.diff()
    hint = "kept_ids must hold, for each token, the ids it was drawn from"
    if bool((counts < 0).any()) or bool(((support.ids < 0) | (support.ids >= asked.vocabulary)).any()):
        raise PluginError(f"{who} returned kept_ids with decreasing offsets or ids outside the vocabulary", hint)
    owner = torch.arange(len(counts)).repeat_interleave(counts)
    kept = torch.zeros(len(counts), dtype=torch.bool)
    kept[owner[support.ids == ids_BT.reshape(-1)[owner]]] = True
    _refuse(~kept.reshape(ids_BT.shape) & inside_BT, ids_BT, who, "token id", f"its kept_ids do not contain it; {hint}")
