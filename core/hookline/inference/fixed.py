"""The exact mode: batches that always have the same shape, so that a sample's bits do not depend on what is drawn beside it.

Matrix products and attention give a row the same bits at every place and beside any other rows, as long as their sizes are the same
(with other sizes, the library may choose a kernel that adds up in another order). So the batch always has all its rows: places that no
answer needs hold a copy of another text, and rows that have ended stay or are replaced. A cache with places shows all its columns from
the beginning, and each prompt is read alone; other states begin with prompts padded to the longest that there may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hookline.contract.family import Decoding
from hookline.errors import ExperimentError
from hookline.models.role import Role

__all__ = ["Fixed"]

MOST = 1 << 20
"""A model with more positions than this is taken to have none that limit it."""


@dataclass(frozen=True)
class Fixed:
    """The shape of all batches."""

    rows: int
    """Texts in a batch."""
    positions: int = 0
    """The most tokens of a text, prompt and answer; 0: what the model has positions for."""

    def begin(self, role: Role, prompts: Sequence[Sequence[int]], filler: int, max_new_tokens: int) -> Decoding:
        """The state of all rows after at most `rows` prompts; the first is repeated in the places that are left."""
        positions = self.room(role, max(map(len, prompts)), max_new_tokens)
        prompts = [*prompts, *[prompts[0]] * (self.rows - len(prompts))]
        state = role.prefill([prompts[0]], filler)
        if not state.replaceable:
            return role.prefill([*prompts, [filler] * (positions - max_new_tokens)], filler)
        state = state.rows(torch.zeros(self.rows, dtype=torch.long, device=role.device))
        state.reserve(positions)
        for places, one in self.alone(role, prompts[1:], filler):
            state.replace(places + 1, one)
        return state

    def alone(self, role: Role, prompts: Sequence[Sequence[int]], filler: int) -> list[tuple[Tensor, Decoding]]:
        """For each different prompt, which of `prompts` are equal to it, and the state after it in so many rows."""
        places: dict[tuple[int, ...], list[int]] = {}
        for at, prompt in enumerate(prompts):
            places.setdefault(tuple(prompt), []).append(at)
        found = []
        for prompt, where in places.items():
            index_N = torch.tensor(where, device=role.device)
            found.append((index_N, role.prefill([list(prompt)], filler).rows(torch.zeros_like(index_N))))
        return found

    def room(self, role: Role, prompt: int, max_new_tokens: int) -> int:
        """The positions of each row. Raises ExperimentError if there is no limit, or a prompt and its answer exceed it."""
        positions = min(self.positions or role.context, role.context)
        if positions > MOST:
            raise ExperimentError(
                f"the exact mode has room for the longest text, but role '{role.name}' has no limit of positions",
                "set it: engine: {use: local, exact: true, positions: 2048}",
            )
        if prompt + max_new_tokens > positions:
            raise ExperimentError(
                f"a prompt of {prompt} tokens and {max_new_tokens} new ones make {prompt + max_new_tokens}, but the exact mode has "
                f"{positions} positions",
                "raise `positions` of the engine, or shorten the prompts",
            )
        return positions

    @torch.no_grad()
    def check(self, role: Role, filler: int) -> None:
        """Compare the bits of one text at several places, among copies of itself and among others.

        Raises ExperimentError if they differ: the sizes do not suit the machine, or the network mixes rows. Routed experts always
        are refused: each multiplies as many rows as chose it, which may or may not change a bit.
        """
        if any("expert" in name.lower() for name, _ in role.base.named_modules()):
            raise ExperimentError(
                f"the exact mode cannot keep its promise: role '{role.name}' has routed experts, which compute as many rows as chose them",
                "leave out `exact`, or choose a network without experts",
            )
        V, length = role.vocabulary, max(1, min(4, self.room(role, 1, 1) - 3))
        some = [[(3 + 5 * at) % V for at in range(length)]]
        others = [[(row + 2 + 7 * at) % V for at in range(1 + (row + at0) % length)] for at0, row in enumerate(range(self.rows))]
        kept = sorted({0, self.rows // 3, self.rows - 1})
        mixed = [some[0] if row in kept else other for row, other in enumerate(others)]
        said = [self._said(role, prompts, filler) for prompts in (some * self.rows, mixed)]
        same = all(bool((whole[: self.rows] == whole[:1]).all()) for whole in said[0])
        if same and all(torch.equal(a[kept], b[kept]) for a, b in zip(*said)):
            return
        raise ExperimentError(
            f"the exact mode cannot keep its promise: role '{role.name}' computes a text in another way, to the last bits, beside other "
            f"texts in a batch of {self.rows}",
            "set `slots` of the engine to a multiple of 16, or leave out `exact`",
        )

    def _said(self, role: Role, prompts: Sequence[Sequence[int]], filler: int) -> list[Tensor]:
        """Logits after the prompts and after two tokens more, which are those of the first row for rows with its prompt."""
        state = self.begin(role, prompts, filler, 3)
        said = [state.logits_BV.clone()]
        for step in range(2):
            ids = [(11 + step if prompt == prompts[0] else row) % role.vocabulary for row, prompt in enumerate(prompts)]
            ids += [0] * (len(state.logits_BV) - len(ids))
            said.append(role.step(state, torch.tensor(ids, device=role.device)).clone())
        return said
