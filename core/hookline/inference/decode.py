"""Decoding with the roles' own weights: all rows that fit are one batch, and each row's random numbers are its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hookline import kernels, rng
from hookline.batch.stages import KeptIds, Sampling
from hookline.contract.engine import Completion
from hookline.contract.family import Decoding
from hookline.errors import PluginError
from hookline.inference.fixed import Fixed
from hookline.inference.past import Past, Stops
from hookline.models.role import Role

__all__ = ["NextToken", "decode", "draw_token"]

SLOTS = 256
"""Rows in one batch."""
CHECKED = 16
"""On a GPU, steps between two questions whether rows have ended, each of which waits for the GPU."""
REFILLED = 8
"""One part in so many of the places must be free before waiting prompts are read, so that they are read together."""


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


def draw_token(logits_BV: Tensor, sampling: Sampling, u_B: Tensor, greedy_B: Tensor | None = None) -> kernels.Drawn:
    """One token per row under `sampling`, at the points `u_B` in [0, 1) of its cumulative distribution."""
    return kernels.draw(
        logits_BV,
        u_B,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        greedy=greedy_B,
    )


def read(roles: Mapping[str, Role], prompts: Sequence[Sequence[int]], filler: int) -> dict[str, Decoding]:
    """Each role's state after the prompts; equal prompts, e.g. of a group, are read once."""
    place: dict[tuple[int, ...], int] = {}
    which = [place.setdefault(tuple(prompt), len(place)) for prompt in prompts]
    states = {}
    for name, role in roles.items():
        state = role.prefill(list(place), filler)
        if len(place) < len(prompts):
            if state.movable:
                state = state.rows(torch.tensor(which, device=role.device))
            else:
                state = role.prefill(prompts, filler)
        states[name] = state
    return states


class Live:
    """The rows that are being decoded: places in each role's state. Those that have ended stay until they are removed."""

    def __init__(
        self, roles: Mapping[str, Role], rows: Sequence[int], states: dict[str, Decoding], past: Past | None = None
    ) -> None:
        """rows: which prompt is in each place. past: their tokens, if logits depend on them."""
        self.roles, self.states, self.past = roles, states, past
        device = next(iter(roles.values())).device
        self.row_R = torch.tensor(rows, device=device)
        self.at_R = torch.zeros_like(self.row_R)
        """How many tokens each row has drawn."""
        self.done_R = torch.zeros_like(self.row_R, dtype=torch.bool)
        self.steps = 0
        self.wasted = 0
        """Rows that were computed after they had ended, since the batch last shrank."""

    def __len__(self) -> int:
        return len(self.row_R)

    def logits(self, combine: Callable[[Mapping[str, NextToken]], Tensor] | None, ends: tuple[int, ...]) -> Tensor:
        """What the next tokens are drawn from, [R, V]."""
        said = {name: NextToken(role, self.states[name]) for name, role in self.roles.items()}
        logits_RV = combine(said).float() if combine else next(iter(said.values())).logits_BV
        return self.past.reshaped(logits_RV, self.at_R, ends) if self.past else logits_RV

    def took(self, ids_R: Tensor, ended_R: Tensor, most: int) -> None:
        """Count one more token of each row. ended_R: which of these tokens end an answer."""
        if self.past:
            self.past.add(ids_R)
        self.at_R = self.at_R + 1
        self.done_R = self.done_R | ended_R | (self.at_R >= most)
        self.steps += 1

    def step(self, ids_R: Tensor) -> None:
        for name, role in self.roles.items():
            role.step(self.states[name], ids_R)

    @property
    def replaceable(self) -> bool:
        return all(state.replaceable for state in self.states.values())

    def refill(
        self, place_N: Tensor, rows: Sequence[int], prompts: Sequence[Sequence[int]], states: Mapping[str, Decoding]
    ) -> None:
        """Give places to other prompts, which `states` have read."""
        for name, state in self.states.items():
            state.replace(place_N, states[name])
        if self.past:
            self.past.begin(place_N, prompts)
        self.row_R = self.row_R.index_copy(0, place_N, torch.tensor(rows, device=self.row_R.device))
        self.at_R, self.done_R = self.at_R.index_fill(0, place_N, 0), self.done_R.index_fill(0, place_N, False)

    def shrink(self, free: int, ids_R: Tensor) -> Tensor:
        """Remove rows that have ended once they have cost as much as a step of all rows, which is about what moving the
        others costs. free: how many have ended. Returns `ids_R` of the rows that are left."""
        self.wasted += free
        if self.wasted < len(self) or not all(state.movable for state in self.states.values()):
            return ids_R
        left_N = (~self.done_R).nonzero()[:, 0]
        self.states = {name: state.rows(left_N) for name, state in self.states.items()}
        self.row_R, self.at_R, self.done_R = self.row_R[left_N], self.at_R[left_N], self.done_R[left_N]
        if self.past:
            self.past.keep(left_N)
        self.wasted = 0
        return ids_R[left_N]


class Answers:
    """What has been drawn, [B + 1, T + 1]: a row that goes on after its last token writes into the last column, and a place that
    no answer needs into the last row."""

    def __init__(self, B: int, T: int, device: torch.device) -> None:
        self.T = T
        self.token_ids_BT = torch.zeros(B + 1, T + 1, dtype=torch.long, device=device)
        self.logprobs_BT = torch.zeros(B + 1, T + 1, device=device)
        self.kept: list[tuple[Tensor, Tensor, KeptIds]] = []
        """Per step: rows, how many tokens they had, and the kept ids of their next one."""
        self.read_B = [0] * B + [T]
        """How many tokens of each row were looked at for stop strings."""
        self.stopped: dict[int, int] = {}
        """The length of each answer that a stop string ended."""

    def stop(self, live: Live, stops: Stops) -> None:
        """Look for stop strings in what was drawn since this was last called, and mark the rows that have ended."""
        rows, at = live.row_R.tolist(), live.at_R.clamp(max=self.T).tolist()
        ids = self.token_ids_BT[live.row_R].tolist()
        for place, (row, n) in enumerate(zip(rows, at)):
            if row not in self.stopped and self.read_B[row] < n:
                length = stops.found(ids[place][:n], self.read_B[row])
                self.read_B[row] = n
                if length is not None:
                    self.stopped[row] = length
        live.done_R = live.done_R | torch.tensor([row in self.stopped for row in rows], device=live.done_R.device)

    def write(self, live: Live, drawn: kernels.Drawn) -> None:
        at_R = live.at_R.clamp(max=self.T)
        self.token_ids_BT[live.row_R, at_R] = drawn.ids
        self.logprobs_BT[live.row_R, at_R] = drawn.logprobs.float()
        if drawn.support is not None:
            self.kept.append((live.row_R, at_R, KeptIds(*drawn.support)))

    def completions(self, ends: tuple[int, ...], version: int) -> list[Completion]:
        """One per row, up to its first ending token."""
        tokens_BT, logprobs_BT = self.token_ids_BT[:-1, : self.T].cpu(), self.logprobs_BT[:-1, : self.T].cpu()
        ended_BT = torch.nn.functional.pad(torch.isin(tokens_BT, torch.tensor(ends)), (0, 1))  # also where T is 0
        ended_B = ended_BT.any(1)
        length_B = torch.where(ended_B, ended_BT.int().argmax(1) + 1, self.T)
        for row, length in self.stopped.items():
            length_B[row], ended_B[row] = min(length, int(length_B[row])), True
        supports = self._supports(length_B)
        return [
            Completion(
                token_ids=tokens_BT[row, :length],
                logprobs=logprobs_BT[row, :length],
                versions=torch.full((length,), version, dtype=torch.long),
                finish_reason="stop" if ended else "length",
                kept_ids=supports[row] if supports else None,
            )
            for row, (length, ended) in enumerate(zip(length_B.tolist(), ended_B.tolist()))
        ]

    def _supports(self, length_B: Tensor) -> list[KeptIds]:
        """The kept ids of each row's tokens, from those of each step."""
        if not self.kept:
            return []
        B, length_B = len(length_B), torch.nn.functional.pad(length_B, (0, 1))
        counts_BT = torch.zeros(B + 1, self.T + 1, dtype=torch.long)
        owners, ids = [], []
        for row_R, at_R, support in self.kept:
            rows, at, counts = row_R.cpu(), at_R.cpu(), support.offsets.diff().cpu()
            counts = torch.where(at < length_B[rows], counts, 0)
            inside = support.ids.cpu()[(at < length_B[rows]).repeat_interleave(support.offsets.diff().cpu())]
            counts_BT[rows, at] += counts
            owners.append(rows.repeat_interleave(counts))
            ids.append(inside)
        order = torch.argsort(torch.cat(owners), stable=True)
        mine = torch.split(torch.cat(ids)[order], counts_BT.sum(1).tolist())
        offsets_BT = torch.cat([counts_BT.new_zeros(B + 1, 1), counts_BT.cumsum(1)], 1)
        return [KeptIds(mine[row], offsets_BT[row, : length + 1]) for row, length in enumerate(length_B[:B].tolist())]


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
    slots: int = SLOTS,
    text: Callable[[Sequence[int]], str] | None = None,
    fixed: Fixed | None = None,
) -> list[Completion]:
    """One answer per prompt. Rows are computed together, but a row's random numbers come from (seed, its sample id).

    roles: the one that draws, by name, then the additional roles passed to `combine`. prompts: token ids, at least one
    each; equal ones are read once. greedy_B: rows that take the likeliest token instead of a drawn one. slots: the most
    rows at a time, without `combine`, which sees all rows in their order. Rows that have ended give their places to prompts
    that wait; where none waits, the batch shrinks. text: from token ids to text, for stop strings.
    fixed: the shape of all batches in the exact mode, which has one role.
    """
    B, (name, role) = len(prompts), next(iter(roles.items()))
    device = role.device
    answers = Answers(B, max_new_tokens, device)
    last, sample_B = torch.tensor(ends, device=device), torch.nn.functional.pad(sample_B, (0, 1)).to(device)
    likeliest_B = torch.nn.functional.pad(greedy_B, (0, 1)).to(device) if bool(greedy_B.any()) else None
    waiting = list(range(B if max_new_tokens else 0))
    slots = fixed.rows if fixed else max(slots, B) if combine else slots
    longest = max((len(prompt) for prompt in prompts), default=0) + max_new_tokens
    stops = Stops(sampling, text) if sampling.stop_strings and text else None
    live: Live | None = None
    while live is not None or waiting:
        if live is None:
            now, waiting = waiting[:slots], waiting[slots:]
            begun = [prompts[row] for row in now]
            if fixed:
                states = {name: fixed.begin(role, begun, ends[0], max_new_tokens)}
                free = len(next(iter(states.values())).logits_BV) - len(now)
                now, begun = [*now, *[B] * free], [*begun, *begun[:1] * free]
            else:
                states = read(roles, begun, ends[0])
            live = Live(roles, now, states, Past(begun, sampling, longest, device) if sampling.reshapes else None)
            live.done_R = live.row_R == B
        logits_BV = live.logits(combine, ends)
        u_B = rng.uniform(seed, sample_B[live.row_R], live.at_R)
        drawn = draw_token(logits_BV, sampling, u_B, None if likeliest_B is None else likeliest_B[live.row_R])
        answers.write(live, drawn)
        ids = drawn.ids
        live.took(ids, torch.isin(ids, last), max_new_tokens)
        if device.type == "cpu" or live.steps % CHECKED == 0 or live.steps >= max_new_tokens:
            if stops:
                answers.stop(live, stops)
            free_N = live.done_R.nonzero()[:, 0]
            if len(free_N) == len(live):
                live = None
                continue
            if waiting and live.replaceable and len(free_N) * REFILLED >= len(live):
                now, waiting = waiting[: len(free_N)], waiting[len(free_N) :]
                live.step(ids)
                begun, free_N = [prompts[row] for row in now], free_N[: len(now)]
                if fixed:
                    for index_N, state in fixed.alone(role, begun, ends[0]):
                        some = index_N.tolist()
                        live.refill(free_N[index_N], [now[i] for i in some], [begun[i] for i in some], {name: state})
                else:
                    live.refill(free_N, now, begun, read(roles, begun, ends[0]))
                continue
            if not fixed and not (waiting and live.replaceable):
                ids = live.shrink(len(free_N), ids)
        live.step(ids)
    return answers.completions(ends, role.version)
