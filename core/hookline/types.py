"""The data contract: one frozen type per stage, each adding to the last. `Batch → Rollout → Scored → Advantaged`.

Letters in names are shapes: B rows, P prompt tokens, T response tokens. Everything is right-padded, every row has at
least one prompt token (plain text: its first), and `mask_BT` is true where the policy chose the token; it may have
holes (tool output, other speakers). A named extra column ends in `_B`, `_BP` or `_BT`, and the suffix says how it is
sliced, trimmed and saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

__all__ = [
    "Advantaged",
    "Batch",
    "Behaviour",
    "Judgement",
    "Record",
    "Rollout",
    "Sampling",
    "Scored",
    "Support",
    "Term",
    "concat",
    "pad_rows",
    "pairs",
    "put_last",
    "read_last",
]

Record = Mapping[str, Any]
"""One row of a dataset, as its file or task gave it: keywords, reference answer, tests, …"""

SUFFIXES = ("_BT", "_BP", "_B")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The distribution from which tokens were drawn; log-probs mean nothing without it."""

    temperature: float = 1.0
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches p; 1.0 keeps all."""

    @property
    def truncated(self) -> bool:
        return self.top_k > 0 or self.top_p < 1.0


@dataclass(frozen=True, eq=False)
class Support:
    """For each token of a [B, T] block, in row-major order, the ids that top-k/top-p kept: `ids[offsets[n]:offsets[n+1]]`."""

    ids: Tensor
    offsets: Tensor

    def select(self, index_N: Tensor) -> Support:
        """The same for some of the tokens, by flat index."""
        counts = (self.offsets[1:] - self.offsets[:-1])[index_N]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        starts = self.offsets[index_N] - offsets[:-1]
        where = torch.arange(int(offsets[-1]), device=self.ids.device) + starts.repeat_interleave(counts)
        return Support(self.ids[where], offsets)


@dataclass(frozen=True, kw_only=True, eq=False)
class Behaviour:
    """How the tokens were drawn: by which weights, from which distribution, and how likely they were."""

    logprobs_BT: Tensor
    """Log-prob of each token under `sampling`, float32, 0 where the mask is false."""
    version_BT: Tensor
    """Which weights drew the token: the policy's count of optimiser steps in this phase, int64."""
    sampling: Sampling
    support: Support | None = None
    """The kept ids, when `sampling` truncates: ratios must be taken on the same support."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Rows of tokens: a prompt and a response each. Lent to hooks: look, add columns, change nothing in place."""

    prompt_ids_BP: Tensor
    prompt_length_B: Tensor
    token_ids_BT: Tensor
    length_B: Tensor
    mask_BT: Tensor
    group_B: Tensor
    """Rows of one prompt share a group; a group's number is never reused within a run."""
    sample_B: Tensor
    """Never reused within a run."""
    records: tuple[Record, ...]
    decode: Callable[[Sequence[int]], str]
    """Token ids to text."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.token_ids_BT.shape[0]

    def prompt_ids(self, row: int) -> list[int]:
        ids: list[int] = self.prompt_ids_BP[row, : int(self.prompt_length_B[row])].tolist()
        return ids

    def response_ids(self, row: int) -> list[int]:
        ids: list[int] = self.token_ids_BT[row, : int(self.length_B[row])].tolist()
        return ids

    def prompt_text(self, row: int) -> str:
        return self.decode(self.prompt_ids(row))

    def response_text(self, row: int) -> str:
        """The response as a person reads it: without the token that ended it."""
        return self.decode(self.response_ids(row))

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of this stage by name, behaviour and extra columns among them."""
        found: dict[str, Tensor] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                found[f.name] = value
            elif isinstance(value, Behaviour):
                found |= {"behaviour.logprobs_BT": value.logprobs_BT, "behaviour.version_BT": value.version_BT}
            elif isinstance(value, Mapping):
                found |= {f"{f.name}[{name}]": column for name, column in value.items()}
        return found

    def with_extra(self, **columns: Tensor) -> Self:
        """The same batch with more named columns; a name's suffix must be its shape."""
        for name, column in columns.items():
            check_column(name, column, self.token_ids_BT.shape, self.prompt_ids_BP.shape)
        return replace(self, extra={**self.extra, **columns})

    def rows(self, index_N: Tensor | Sequence[int]) -> Self:
        """Some of the rows, by index or by a true/false per row, trimmed to their longest prompt and response."""
        index = torch.as_tensor(index_N, device=self.token_ids_BT.device)
        index = index.nonzero()[:, 0] if index.dtype == torch.bool else index.long()
        P = max(1, int(self.prompt_length_B[index].max())) if len(index) else 1
        T = int(self.length_B[index].max()) if len(index) else 0
        old_T = self.token_ids_BT.shape[1]

        def cut(name: str, value: Any) -> Any:
            if isinstance(value, Tensor):
                taken = value[index]
                return taken[:, :T] if name.endswith("_BT") else taken[:, :P] if name.endswith("_BP") else taken
            if isinstance(value, tuple):
                return tuple(value[i] for i in index.tolist())
            if isinstance(value, Mapping):
                return {key: cut(key, column) for key, column in value.items()}
            if isinstance(value, Behaviour):
                support = value.support
                if support is not None:
                    flat = index[:, None] * old_T + torch.arange(T, device=index.device)
                    support = support.select(flat.reshape(-1))
                return replace(
                    value,
                    logprobs_BT=cut("_BT", value.logprobs_BT),
                    version_BT=cut("_BT", value.version_BT),
                    support=support,
                )
            return value

        return replace(self, **{f.name: cut(f.name, getattr(self, f.name)) for f in fields(self)})


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollout(Batch):
    """Experience: sampled from the policy, or read from a dataset (then nobody recorded a behaviour)."""

    finish_reason: tuple[str, ...]
    """Per row: `stop` (the policy ended it), `length` (the limit did), or `recorded` (read from data)."""
    source: tuple[str, ...]
    """Per row: who produced it, e.g. `policy` or the dataset's name."""
    behaviour: Behaviour | None = None

    def scored(self, reward_BT: Tensor, terms: Mapping[str, Tensor] | None = None) -> Scored:
        """Add rewards: [B, T], or [B] for the whole answer, which then sits on its last true token."""
        if reward_BT.dim() == 1:
            reward_BT = put_last(reward_BT, self.mask_BT)
        return Scored(**_as_kwargs(self), reward_BT=reward_BT.float(), terms=dict(terms or {}))


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored(Rollout):
    """Experience and what it was worth."""

    reward_BT: Tensor
    """Float32; a reward for the whole answer sits on its last true token."""
    terms: Mapping[str, Tensor]
    """Each named reward before weighing, one number per row."""

    @property
    def reward_B(self) -> Tensor:
        return self.reward_BT.sum(1)

    def with_reward(self, reward_BT: Tensor, **terms: Tensor) -> Scored:
        """The same rows at another price, e.g. after a penalty."""
        return replace(self, reward_BT=reward_BT, terms={**self.terms, **terms})

    def advantaged(self, advantage: Tensor, **columns: Tensor) -> Advantaged:
        """Add advantages: [B, T], or [B] for all of a row's chosen tokens. More columns ride along."""
        if advantage.dim() == 1:
            advantage = advantage[:, None] * self.mask_BT
        plain = self.with_extra(**columns)
        return Advantaged(**_as_kwargs(plain), advantage_BT=advantage.float())


@dataclass(frozen=True, kw_only=True, eq=False)
class Advantaged(Scored):
    """Experience with credit per token."""

    advantage_BT: Tensor
    """Float32, zero where the mask is false."""


@dataclass(frozen=True, eq=False)
class Term:
    """What one named reward says: a value per row [B] or token [B, T], and which rows it could judge."""

    value: Tensor
    ok_B: Tensor | None = None
    """False where no answer came; the core drops and counts such rows. None: every row was judged."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Answers to one prompt in order, best first, as a person, a program or a simulated annotator put them.

    Two rows are a comparison, more are a ranking.
    """

    ranking: tuple[int, ...]
    """Rows of the batch, best first, each once."""
    annotator: str
    gold: tuple[float, ...] | None = None
    """What the rows were truly worth, in the order of `ranking`, when the annotator is simulated and knows."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Anything else that should stay with it as JSON: strength, confidence, seconds taken."""


S = TypeVar("S", bound=Batch)


def _as_kwargs(batch: Batch) -> dict[str, Any]:
    return {f.name: getattr(batch, f.name) for f in fields(batch)}


def check_column(name: str, column: Tensor, shape_BT: Sequence[int], shape_BP: Sequence[int]) -> None:
    """A column's suffix is its shape; anything else would be sliced wrongly later."""
    suffix = next((s for s in SUFFIXES if name.endswith(s)), None)
    if suffix is None:
        raise ValueError(f"column '{name}' must end in _B, _BP or _BT: the suffix says how it is sliced")
    want = {"_BT": tuple(shape_BT), "_BP": tuple(shape_BP), "_B": (shape_BT[0],)}[suffix]
    if tuple(column.shape[: len(want)]) != want or column.dim() > len(want) + 1:
        raise ValueError(f"column '{name}' is {list(column.shape)} but the batch has {suffix[1:]} = {list(want)}")


def read_last(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The value at each row's last true token: [B, T] → [B]; 0 for rows without one."""
    B, T = mask_BT.shape
    if not T:
        return value_BT.new_zeros(B)
    last_B = (mask_BT * torch.arange(1, T + 1, device=mask_BT.device)).argmax(1)
    return torch.where(mask_BT.any(1), value_BT.gather(1, last_B[:, None])[:, 0], 0.0)


def put_last(value_B: Tensor, mask_BT: Tensor) -> Tensor:
    """Put a value per row on the row's last true token: [B], [B, T] → [B, T]. Rows without one get nothing."""
    T = mask_BT.shape[1]
    positions_T = torch.arange(T, device=mask_BT.device)
    last_B = torch.where(mask_BT, positions_T, -1).amax(1) if T else value_B.new_full((len(value_B),), -1)
    return torch.where(positions_T == last_B[:, None], value_B[:, None], 0)


def pairs(scored: Scored) -> tuple[Tensor, Tensor]:
    """All comparisons in a batch: (better rows, worse rows). Two rows of one group with different reward are one."""
    reward_B = scored.reward_B
    better_BB = (scored.group_B[:, None] == scored.group_B) & (reward_B[:, None] > reward_B)
    chosen, rejected = better_BB.nonzero(as_tuple=True)
    return chosen, rejected


def concat(batches: Sequence[S]) -> S:
    """One batch of all rows; prompts and responses are padded to the longest."""
    first = batches[0]
    if len(batches) == 1:
        return first

    def join(name: str, values: list[Any]) -> Any:
        head = values[0]
        if len({type(value) for value in values if isinstance(value, Behaviour | None)}) > 1:
            raise ValueError("some rows were sampled and some were read, so nobody can say how the whole was drawn")
        if isinstance(head, Tensor):
            if name.endswith(("_BT", "_BP")):
                width = max(v.shape[1] for v in values)
                values = [_pad(v, width) for v in values]
            return torch.cat(values)
        if isinstance(head, tuple):
            return tuple(item for value in values for item in value)
        if isinstance(head, Mapping):
            shared = [key for key in head if all(key in v for v in values)]
            return {key: join(key, [v[key] for v in values]) for key in shared}
        if isinstance(head, Behaviour):
            if any(v.sampling != head.sampling or (v.support is None) != (head.support is None) for v in values):
                raise ValueError("rows drawn under different sampling cannot be one batch: ratios would be wrong")
            return replace(
                head,
                logprobs_BT=join("_BT", [v.logprobs_BT for v in values]),
                version_BT=join("_BT", [v.version_BT for v in values]),
                support=_join_support(values) if head.support is not None else None,
            )
        return head

    return replace(first, **{f.name: join(f.name, [getattr(b, f.name) for b in batches]) for f in fields(first)})


def _pad(value: Tensor, width: int) -> Tensor:
    missing = width - value.shape[1]
    if not missing:
        return value
    return torch.cat([value, value.new_zeros(len(value), missing, *value.shape[2:])], 1)


def _join_support(values: Sequence[Behaviour]) -> Support:
    width = max(v.logprobs_BT.shape[1] for v in values)
    ids, counts = [], []
    for v in values:
        assert v.support is not None
        rows, T = v.logprobs_BT.shape
        count_BT = (v.support.offsets[1:] - v.support.offsets[:-1]).view(rows, T)
        counts.append(_pad(count_BT, width).reshape(-1))
        ids.append(v.support.ids)
    count = torch.cat(counts)
    return Support(torch.cat(ids), torch.cat([count.new_zeros(1), count.cumsum(0)]))


def pad_rows(rows: Iterable[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Lists of ids to a right-padded [B, N] tensor (at least one column) and lengths [B]."""
    lists = [list(row) for row in rows]
    width = max([1, *(len(row) for row in lists)])
    ids = torch.tensor([row + [0] * (width - len(row)) for row in lists], dtype=torch.long, device=device)
    return ids.view(len(lists), width), torch.tensor([len(row) for row in lists], dtype=torch.long, device=device)
