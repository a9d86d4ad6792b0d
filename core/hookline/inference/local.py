"""Drawing answers in this process: batched decoding with a key-value cache; a sample's draws depend on its own seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hookline import kernels, rng
from hookline.batch.stages import Behaviour, KeptIds, Sampling
from hookline.contract.engine import Engine
from hookline.errors import PluginError
from hookline.models.role import Role

__all__ = ["Completions", "NextToken", "draw"]


class NextToken:
    """What a role says at the last position of each row."""

    def __init__(self, role: Role, hidden_BH: Tensor | None, logits_BV: Tensor) -> None:
        self._role, self._hidden_BH = role, hidden_BH
        self.logits_BV = logits_BV
        """About the next token, float32."""

    def head(self, name: str) -> Tensor:
        """A head's figures for the next token, [B] or [B, k]."""
        if name not in self._role.heads or self._hidden_BH is None:
            raise PluginError(f"role '{self._role.name}' has no head '{name}' to draw by", "make it in setup: ctx.head")
        found: Tensor = self._role.heads[name](self._hidden_BH)
        return found.float()


@dataclass(frozen=True, eq=False)
class Completions:
    """Answers, right-padded, and how they were drawn."""

    token_ids_BT: Tensor
    length_B: Tensor
    finish_reason: tuple[str, ...]
    behaviour: Behaviour


@torch.no_grad()
def draw(
    roles: Mapping[str, Role],
    prompts: Sequence[Sequence[int]],
    sample_B: Tensor,
    *,
    sampling: Sampling,
    max_new_tokens: int,
    eos: int,
    seed: int,
    combine: Callable[[Mapping[str, NextToken]], Tensor] | None = None,
    greedy_B: Tensor | None = None,
) -> Completions:
    """One answer per prompt. Rows are computed together, but a row's random numbers come from (seed, its sample id).

    roles: the one that draws, by name, and those that `combine` hears beside it.
    prompts: token ids, at least one each. Finished rows leave the batch once half of it is done. greedy_B: rows that take
    the likeliest token instead of a drawn one.
    """
    role = next(iter(roles.values()))
    device = role.device
    B, T = len(prompts), max_new_tokens
    width = max(len(prompt) for prompt in prompts)
    ids_BP = torch.tensor([[eos] * (width - len(p)) + list(p) for p in prompts], dtype=torch.long, device=device)
    pad_B = torch.tensor([width - len(p) for p in prompts], device=device)
    token_ids_BT = torch.zeros(B, T, dtype=torch.long, device=device)
    logprobs_BT = torch.zeros(B, T, device=device)
    length_B = torch.full((B,), T, dtype=torch.long, device=device)
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    live = torch.arange(B, device=device)
    done_B = torch.zeros(B, dtype=torch.bool, device=device)
    caches: dict[str, Any] = dict.fromkeys(roles)
    inputs = ids_BP
    for t in range(T):
        seen = width + t
        valid = torch.arange(seen, device=device) >= pad_B[live, None]
        position = (torch.arange(seen, device=device) - pad_B[live, None]).clamp(min=0)
        given = {
            "input_ids": inputs,
            "attention_mask": valid.long(),
            "position_ids": position[:, -inputs.shape[1] :],
            "use_cache": True,
        }
        said = {}
        for name, one in roles.items():
            said[name], caches[name] = _look(one, {**given, "past_key_values": caches[name]})
        logits = combine(said).float() if combine else next(iter(said.values())).logits_BV
        ids, support = choose(logits, sampling, rng.uniform(seed, sample_B[live.cpu()], t).to(device))
        if greedy_B is not None and bool(greedy_B.any()):
            ids = torch.where(greedy_B.to(device)[live], logits.argmax(-1), ids)
        stats = kernels.token_stats(
            logits,
            ids,
            temperature=sampling.temperature,
            support=None if support is None else (support.ids, support.offsets),
        )
        running = ~done_B[live]
        rows = live[running]
        assert stats.logprobs is not None
        token_ids_BT[rows, t] = ids[running]
        logprobs_BT[rows, t] = stats.logprobs[running]
        if support is not None:
            counts = support.offsets[1:] - support.offsets[:-1]
            kept.append((live, torch.where(running, counts, 0), support.select(running.nonzero()[:, 0]).ids))
        ended = rows[ids[running] == eos]
        length_B[ended] = t + 1
        done_B[ended] = True
        if bool(done_B.all()) or t + 1 == T:
            break
        keep = ~done_B[live]
        if int(keep.sum()) * 2 <= len(live) and all(hasattr(c, "batch_select_indices") for c in caches.values()):
            for cache in caches.values():
                cache.batch_select_indices(keep.nonzero()[:, 0])
            live, ids = live[keep], ids[keep]
        inputs = ids[:, None]
    longest = int(length_B.max()) if B else 0
    finish = tuple("stop" if done else "length" for done in done_B.tolist())
    return Completions(
        token_ids_BT[:, :longest].cpu(),
        length_B.cpu(),
        finish,
        Behaviour(
            logprobs_BT=logprobs_BT[:, :longest].cpu(),
            version_BT=torch.full((B, longest), role.version, dtype=torch.long),
            sampling=sampling,
            support=_assemble(kept, B, longest),
        ),
    )


def _look(role: Role, given: dict[str, Any]) -> tuple[NextToken, Any]:
    """One decoding step of one role: what it says, and its key-value cache."""
    if role.check_fused(given["input_ids"]):
        out = role.trunk(**given)
        weight, bias = role.head
        hidden = out.last_hidden_state[:, -1]
        with role.computing():
            logits = torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias).float()
        return NextToken(role, hidden, logits), out.past_key_values
    with role.computing():
        out = role.base(**given, logits_to_keep=1)
    return NextToken(role, None, out.logits[:, -1].float()), out.past_key_values


def choose(logits_BV: Tensor, sampling: Sampling, u_B: Tensor) -> tuple[Tensor, KeptIds | None]:
    """One token per row by inverting the cumulative distribution at u, and the kept ids when top-k/top-p cut it."""
    probs_BV = torch.softmax(logits_BV / sampling.temperature, -1)
    support = None
    if sampling.truncated:
        ranked, order = torch.sort(probs_BV, dim=-1, descending=True, stable=True)
        keep = torch.ones_like(ranked, dtype=torch.bool)
        if sampling.top_k:
            keep[:, sampling.top_k :] = False
        if sampling.top_p < 1.0:
            keep &= ranked.cumsum(-1) - ranked < sampling.top_p
        keep_BV = torch.zeros_like(keep).scatter(1, order, keep)
        probs_BV = torch.where(keep_BV, probs_BV, 0.0)
        counts = keep_BV.sum(1)
        support = KeptIds(keep_BV.nonzero()[:, 1], torch.cat([counts.new_zeros(1), counts.cumsum(0)]))
    cumulative_BV = probs_BV.cumsum(-1)
    target_B1 = (u_B.to(cumulative_BV.dtype) * cumulative_BV[:, -1])[:, None]
    ids = torch.searchsorted(cumulative_BV, target_B1, right=True)[:, 0]
    last = (probs_BV > 0).cumsum(1).argmax(1)
    return torch.minimum(ids, last), support


def _assemble(kept: list[tuple[Tensor, Tensor, Tensor]], B: int, T: int) -> KeptIds | None:
    """Kept ids of each step, joined row by row."""
    if not kept:
        return None
    counts_BT = torch.zeros(B, T, dtype=torch.long)
    owner, step, ids = [], [], []
    for t, (live, counts, chosen) in enumerate(kept[:T]):
        counts_BT[live.cpu(), t] = counts.cpu()
        owner.append(live.cpu().repeat_interleave(counts.cpu()))
        step.append(torch.full((len(chosen),), t))
        ids.append(chosen.cpu())
    order = torch.argsort(torch.cat(owner) * T + torch.cat(step), stable=True)
    flat = counts_BT.reshape(-1)
    return KeptIds(torch.cat(ids)[order], torch.cat([flat.new_zeros(1), flat.cumsum(0)]))


class Local(Engine):
    """Draws in this process."""
