"""The sampler before there were engines, word for word but for where a model is called: what `ctx.draw` must still give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hookline import Behaviour, Completions, KeptIds, Sampling, kernels, rng
from hookline.models.role import Role


class Said:
    def __init__(self, role: Role, hidden_BH: Tensor, logits_BV: Tensor) -> None:
        self.role, self.hidden_BH, self.logits_BV = role, hidden_BH, logits_BV

    def head(self, name: str) -> Tensor:
        found: Tensor = self.role.heads[name](self.hidden_BH)
        return found.float()


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
    combine: Callable[[Mapping[str, Any]], Tensor] | None = None,
    greedy_B: Tensor | None = None,
) -> Completions:
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


def _look(role: Role, given: dict[str, Any]) -> tuple[Said, Any]:
    with role.computing():
        out = getattr(role.base, role.base.base_model_prefix)(**given)
    weight, bias = role.head
    hidden = out.last_hidden_state[:, -1]
    with role.computing():
        logits = torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias).float()
    return Said(role, hidden, logits), out.past_key_values


def _assemble(kept: list[tuple[Tensor, Tensor, Tensor]], B: int, T: int) -> KeptIds | None:
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
            ranked = torch.where(keep, ranked, 0.0)
            keep &= ranked.cumsum(-1) - ranked < sampling.top_p * ranked.sum(-1, keepdim=True)
        keep_BV = torch.zeros_like(keep).scatter(1, order, keep)
        probs_BV = torch.where(keep_BV, probs_BV, 0.0)
        counts = keep_BV.sum(1)
        support = KeptIds(keep_BV.nonzero()[:, 1], torch.cat([counts.new_zeros(1), counts.cumsum(0)]))
    cumulative_BV = probs_BV.cumsum(-1)
    target_B1 = (u_B.to(cumulative_BV.dtype) * cumulative_BV[:, -1])[:, None]
    ids = torch.searchsorted(cumulative_BV, target_B1, right=True)[:, 0]
    last = (probs_BV > 0).cumsum(1).argmax(1)
    return torch.minimum(ids, last), support
