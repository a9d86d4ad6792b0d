"""Drawing answers in this process: batched decoding with a family's own state; each sample has its own seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from hookline import kernels, rng
from hookline.batch.columns import pad_rows
from hookline.batch.stages import Batch, KeptIds, Sampling
from hookline.contract.context import Context
from hookline.contract.engine import Completion, Engine, Request
from hookline.contract.family import Decoding
from hookline.errors import PluginError
from hookline.models.role import Role
from hookline.training.statistics import statistics

__all__ = ["Local", "NextToken"]


class NextToken:
    """What a role predicts at the last position of each row."""

    def __init__(self, role: Role, state: Decoding) -> None:
        self._role, self._hidden_BH = role, state.hidden_BH
        self.logits_BV = role.only_tokens(state.logits_BV)
        """About the next token, float32."""

    def head(self, name: str) -> Tensor:
        """A head's figures for the next token, [B] or [B, k]."""
        if name not in self._role.heads or self._hidden_BH is None:
            raise PluginError(
                f"role '{self._role.name}' has no head '{name}' to draw with", "make it in setup: ctx.head"
            )
        found: Tensor = self._role.heads[name](self._hidden_BH)
        return found.float()


class Local(Engine):
    """In this process, with the roles' own weights. Requests that wait in one turn of the event loop are one batch."""

    gives = frozenset({"combine", "kept-ids", "score"})

    def setup(self, ctx: Context) -> None:
        self.role_named = cast("Callable[[str], Role]", ctx.role_named)
        self.waiting: list[tuple[Request, asyncio.Future[Completion]]] = []

    async def draw(self, request: Request) -> Completion:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Completion] = loop.create_future()
        self.waiting.append((request, answer))
        if len(self.waiting) == 1:
            loop.call_soon(self._answer)
        return await answer

    def _answer(self) -> None:
        """Draw all waiting requests: those that differ only in prompt, sample and `greedy` are one batch, in order."""
        waiting, self.waiting = self.waiting, []
        batches: dict[tuple[object, ...], list[tuple[Request, asyncio.Future[Completion]]]] = {}
        for request, answer in waiting:
            r = request
            alike = (r.role, r.beside, r.combine, r.sampling, r.max_new_tokens, r.ends, r.seed)
            batches.setdefault(alike, []).append((request, answer))
        for together in batches.values():
            try:
                drawn = self._draw([request for request, _ in together])
            except Exception as err:
                for _, answer in together:
                    if not answer.done():
                        answer.set_exception(err)
                continue
            for (_, answer), completion in zip(together, drawn):
                if not answer.done():
                    answer.set_result(completion)

    def _draw(self, requests: Sequence[Request]) -> list[Completion]:
        first = requests[0]
        return decode(
            {name: self.role_named(name) for name in (first.role, *first.beside)},
            [request.prompt for request in requests],
            torch.tensor([request.sample for request in requests], dtype=torch.long),
            torch.tensor([request.greedy for request in requests]),
            sampling=first.sampling,
            max_new_tokens=first.max_new_tokens,
            ends=first.ends,
            seed=first.seed,
            combine=first.combine,
        )

    async def score(self, role: str, token_ids: Sequence[int]) -> Tensor:
        scoring = self.role_named(role)
        prompt_ids_BP, prompt_length_B = pad_rows([token_ids[:1]])
        token_ids_BT, length_B = pad_rows([token_ids[1:]])
        token_ids_BT = token_ids_BT[:, : int(length_B[0])]
        row = Batch(
            prompt_ids_BP=prompt_ids_BP,
            prompt_length_B=prompt_length_B,
            token_ids_BT=token_ids_BT,
            length_B=length_B,
            mask_BT=torch.ones_like(token_ids_BT, dtype=torch.bool),
            group_B=length_B * 0,
            sample_B=length_B * 0,
            records=({},),
            decode=lambda ids: "",
        )
        return statistics(scoring, row, ("logprobs",), len(token_ids)).logprobs_BT[0]


@torch.no_grad()
def decode(
    roles: Mapping[str, Role],
    prompts: Sequence[Sequence[int]],
    sample_B: Tensor,
    greedy_B: Tensor,
    *,
    sampling: Sampling,
    max_new_tokens: int,
    ends: tuple[int, ...],
    seed: int,
    combine: Callable[[Mapping[str, NextToken]], Tensor] | None = None,
) -> list[Completion]:
    """One answer per prompt. Rows are computed together, but a row's random numbers come from (seed, its sample id).

    roles: the one that draws, by name, then the additional roles passed to `combine`.
    prompts: token ids, at least one each. Finished rows leave the batch once half of it is done. greedy_B: rows that take
    the likeliest token instead of a drawn one.
    """
    device = next(iter(roles.values())).device
    B, T = len(prompts), max_new_tokens
    token_ids_BT = torch.zeros(B, T, dtype=torch.long, device=device)
    logprobs_BT = torch.zeros(B, T, device=device)
    length_B = torch.full((B,), T, dtype=torch.long, device=device)
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    live = torch.arange(B, device=device)
    last = torch.tensor(ends, device=device)
    done_B = torch.zeros(B, dtype=torch.bool, device=device)
    any_greedy, greedy_B = bool(greedy_B.any()), greedy_B.to(device)
    states = {name: role.prefill(prompts, ends[0]) for name, role in roles.items()}
    for t in range(T):
        said = {name: NextToken(role, states[name]) for name, role in roles.items()}
        logits = combine(said).float() if combine else next(iter(said.values())).logits_BV
        ids, support = choose(logits, sampling, rng.uniform(seed, sample_B[live.cpu()], t).to(device))
        if any_greedy:
            ids = torch.where(greedy_B[live], logits.argmax(-1), ids)
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
            counts = support.offsets.diff()
            kept.append((live, torch.where(running, counts, 0), support.select(running.nonzero()[:, 0]).ids))
        ended = rows[torch.isin(ids[running], last)]
        length_B[ended] = t + 1
        done_B[ended] = True
        if bool(done_B.all()) or t + 1 == T:
            break
        keep = ~done_B[live]
        if int(keep.sum()) * 2 <= len(live) and all(state.movable for state in states.values()):
            states = {name: state.rows(keep.nonzero()[:, 0]) for name, state in states.items()}
            live, ids = live[keep], ids[keep]
        for name, role in roles.items():
            role.step(states[name], ids)
    version = next(iter(roles.values())).version
    lengths, done = length_B.tolist(), done_B.tolist()
    tokens, logprobs = token_ids_BT.cpu(), logprobs_BT.cpu()
    versions = torch.full((T,), version, dtype=torch.long)
    supports = _by_row(kept, lengths, T)
    return [
        Completion(
            token_ids=tokens[row, :length],
            logprobs=logprobs[row, :length],
            versions=versions[:length],
            finish_reason="stop" if done[row] else "length",
            kept_ids=supports[row] if supports else None,
        )
        for row, length in enumerate(lengths)
    ]


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


def _by_row(kept: list[tuple[Tensor, Tensor, Tensor]], lengths: Sequence[int], T: int) -> list[KeptIds]:
    """Regroup the kept ids of each step, (rows, counts, ids of running rows), into kept ids of each row."""
    if not kept:
        return []
    counts_BT = torch.zeros(len(lengths), T, dtype=torch.long)
    owner, ids = [], []
    for t, (live, counts, chosen) in enumerate(kept):
        counts_BT[live.cpu(), t] = counts.cpu()
        owner.append(live.cpu().repeat_interleave(counts.cpu()))
        ids.append(chosen.cpu())
    order = torch.argsort(torch.cat(owner), stable=True)
    rows = torch.split(torch.cat(ids)[order], counts_BT.sum(1).tolist())
    offsets_BT = torch.cat([counts_BT.new_zeros(len(lengths), 1), counts_BT.cumsum(1)], 1)
    return [KeptIds(mine, offsets_BT[row, : lengths[row] + 1]) for row, mine in enumerate(rows)]
