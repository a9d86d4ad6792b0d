"""The data contract: one frozen type per stage, each adding to the last. `Batch → Rollout → Scored → Advantaged`.

Letters in names are shapes: B rows, P prompt tokens, T response tokens. Everything is right-padded, every row has at
least one prompt token (plain text: its first), and `mask_BT` is true where the policy chose the token; it may have
holes (tool output, other speakers). A named extra column ends in `_B`, `_BP` or `_BT`, and the suffix says how it is
sliced, trimmed and saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from hookline.batch.columns import check_column, pad_rows, put_last, sum_shared
from hookline.batch.encoded import Encoded, Record, learned, stacked

__all__ = [
    "Advantaged",
    "Batch",
    "Behaviour",
    "Judgement",
    "KeptIds",
    "Record",
    "Rollout",
    "Sampling",
    "Scored",
    "Term",
]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The distribution from which tokens were drawn; log-probs mean nothing without it."""

    temperature: float = 1.0
    """Divides the logits, > 0; 1.0 leaves them as they are, small values favour the likeliest tokens."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches p; 1.0 keeps all."""

    @property
    def truncated(self) -> bool:
        """Whether top-k or top-p removes tokens, so that ratios need the kept ids."""
        return self.top_k > 0 or self.top_p < 1.0


@dataclass(frozen=True, eq=False)
class KeptIds:
    """For each token of a [B, T] block, in row-major order, the ids that top-k/top-p kept: `ids[offsets[n]:offsets[n+1]]`."""

    ids: Tensor
    """The kept ids of all tokens, one behind the other, int64 [kept]."""
    offsets: Tensor
    """Where each token's ids begin in `ids`, and their end, int64 [B·T + 1]."""

    def select(self, index_N: Tensor) -> KeptIds:
        """The same for some of the tokens, by flat index b·T + t, int64 [N]."""
        counts = (self.offsets[1:] - self.offsets[:-1])[index_N]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        starts = self.offsets[index_N] - offsets[:-1]
        where = torch.arange(int(offsets[-1]), device=self.ids.device) + starts.repeat_interleave(counts)
        return KeptIds(self.ids[where], offsets)


@dataclass(frozen=True, kw_only=True, eq=False)
class Behaviour:
    """How the tokens were drawn: by which weights, from which distribution, and how likely they were."""

    logprobs_BT: Tensor
    """Log-prob of each token under `sampling`, in nats, float32 [B, T]; 0 where the mask is false."""
    version_BT: Tensor
    """Which weights drew the token: the policy's count of optimiser steps in this phase, int64 [B, T]."""
    sampling: Sampling
    """The distribution that `logprobs_BT` are of."""
    support: KeptIds | None = None
    """The kept ids, when `sampling` truncates: ratios must be taken on the same support."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Rows of tokens: a prompt and a response each. Lent to hooks: look, add columns, change nothing in place."""

    prompt_ids_BP: Tensor
    """Token ids of the prompts, int64 [B, P], right-padded with 0."""
    prompt_length_B: Tensor
    """Tokens of each prompt, at least 1, int64 [B]."""
    token_ids_BT: Tensor
    """Token ids of the responses, int64 [B, T], right-padded with 0; the ending token is included."""
    length_B: Tensor
    """Tokens of each response, int64 [B]; what the policy did not choose counts too."""
    mask_BT: Tensor
    """True where the policy chose the token, bool [B, T]; false in padding and, e.g., for the output of a tool."""
    group_B: Tensor
    """Rows of one prompt share a group, int64 [B]; a group's number is never reused within a run."""
    sample_B: Tensor
    """Each row's sample id, int64 [B]; never reused within a run."""
    records: tuple[Record, ...]
    """The dataset row behind each row of the batch."""
    decode: Callable[[Sequence[int]], str]
    """Token ids to text."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """Named columns besides the fields: `NAME_B` [B, …], `NAME_BP` [B, P, …] or `NAME_BT` [B, T, …]."""

    def __len__(self) -> int:
        """B, the number of rows."""
        return self.token_ids_BT.shape[0]

    def prompt_ids(self, row: int) -> list[int]:
        """The token ids of one row's prompt, without padding."""
        ids: list[int] = self.prompt_ids_BP[row, : int(self.prompt_length_B[row])].tolist()
        return ids

    def response_ids(self, row: int) -> list[int]:
        """The token ids of one row's response, without padding; the ending token is included."""
        ids: list[int] = self.token_ids_BT[row, : int(self.length_B[row])].tolist()
        return ids

    def prompt_text(self, row: int) -> str:
        """One row's prompt as text, without special tokens."""
        return self.decode(self.prompt_ids(row))

    def response_text(self, row: int) -> str:
        """One row's response as text, without special tokens, so without the token that ended it."""
        return self.decode(self.response_ids(row))

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of this stage by name, [B, …] each, e.g. `mask_BT`, `behaviour.logprobs_BT`, `extra[value_BT]`."""
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

    def to(self, device: torch.device | str) -> Self:
        """The same batch with every tensor on a device; itself, without a copy, where they lie there already.

        Between hooks a batch lies on the CPU. The core moves it where a role computes; a component never has to.
        """
        there = torch.device(device)

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(there)
            if isinstance(value, Mapping):
                return {key: move(column) for key, column in value.items()}
            if isinstance(value, KeptIds):
                return KeptIds(value.ids.to(there), value.offsets.to(there))
            if isinstance(value, Behaviour):
                parts = {name: getattr(value, name) for name in ("logprobs_BT", "version_BT", "support")}
                return replace(value, **{name: move(part) for name, part in parts.items()})
            return value

        if all(tensor.device == there for tensor in self.tensors().values()):
            return self
        return replace(self, **{f.name: move(getattr(self, f.name)) for f in fields(self)})

    def with_extra(self, **columns: Tensor) -> Self:
        """The same batch with more columns, by name: `NAME_B` [B, …], `NAME_BP` [B, P, …], `NAME_BT` [B, T, …].

        A column that exists already is replaced. Raises ValueError where a name's suffix is not its shape.
        """
        for name, column in columns.items():
            check_column(name, column, self.token_ids_BT.shape, self.prompt_ids_BP.shape)
        return replace(self, extra={**self.extra, **columns})

    def rows(self, index_N: Tensor | Sequence[int]) -> Self:
        """Some of the rows, trimmed to their longest prompt and response.

        index_N: row numbers, which may repeat and stand in any order, int64 [N]; or a true/false per row, bool [B].
        """
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


class Decodes(Protocol):
    """As much of a tokenizer as a batch needs."""

    def decode(self, ids: Sequence[int]) -> str: ...


class Numbers(Protocol):
    """As much of a context as building a rollout needs."""

    @property
    def tokenizer(self) -> Decodes: ...

    def sample_ids(self, n: int) -> Tensor: ...


class Drawn(Protocol):
    """As much of `hookline.Completions` as building a rollout needs."""

    @property
    def token_ids_BT(self) -> Tensor: ...

    @property
    def length_B(self) -> Tensor: ...

    @property
    def finish_reason(self) -> tuple[str, ...]: ...

    @property
    def behaviour(self) -> Behaviour: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollout(Batch):
    """Experience: sampled from the policy, or read from a dataset (which records no behaviour)."""

    finish_reason: tuple[str, ...]
    """Per row: `stop` (the policy ended it), `length` (the limit did), or `recorded` (read from data)."""
    source: tuple[str, ...]
    """Per row: who produced it, e.g. `policy` or the dataset's name."""
    behaviour: Behaviour | None = None
    """How the tokens were drawn; None for rows that were read from data."""
    episode_B: Tensor = None  # type: ignore[assignment]
    """Rows of one episode share a number, and a group, int64 [B]; a group's statistics count an episode once. Where it
    is not given, every row is an episode of its own, numbered as its sample."""

    def __post_init__(self) -> None:
        if self.episode_B is None:
            object.__setattr__(self, "episode_B", self.sample_B)

    @classmethod
    def build(
        cls,
        ctx: Numbers,
        rows: Sequence[Encoded],
        drawn: Drawn | None = None,
        *,
        source: str | Sequence[str],
        sample_B: Tensor | None = None,
        group: Sequence[int] | None = None,
        episode: Sequence[int] | None = None,
        finish_reason: str | Sequence[str] = "recorded",
        behaviour: Behaviour | None = None,
        columns: Mapping[str, Tensor] | None = None,
    ) -> Rollout:
        """Assemble a rollout from rows of token ids; with `drawn`, from their prompts and the answers to them.

        rows: one per row of the batch; none make a batch of no rows. drawn: what `ctx.draw` answered to their prompts,
        in the same order; its finish reasons and behaviour go along, and every drawn token is in the mask.
        source: who produced the rows, one name for all or one per row. sample_B: ids that were handed out before, e.g.
        to draw by; otherwise fresh ones are taken. group, episode: per row, a number below the count of rows; rows of
        one prompt, or of one episode, share it. It becomes unique within the run. Not given: each row is its own.
        finish_reason: one for all or one per row. columns: named extra columns, besides those that rows bring.
        Raises ValueError where counts or shapes do not agree.
        """
        B = len(rows)
        sample_B = ctx.sample_ids(B) if sample_B is None else sample_B
        prompt_ids_BP, prompt_length_B = pad_rows([row.prompt_ids for row in rows])
        if drawn is None:
            token_ids_BT, length_B = pad_rows([row.answer_ids for row in rows])
            mask_BT = learned(rows, length_B, token_ids_BT.shape[1])
        else:
            token_ids_BT, length_B = drawn.token_ids_BT, drawn.length_B
            mask_BT = torch.arange(token_ids_BT.shape[1]) < length_B[:, None]
            finish_reason, behaviour = drawn.finish_reason, drawn.behaviour
        extra = stacked(rows, prompt_ids_BP.shape[1], token_ids_BT.shape[1])

        def numbered(numbers: Sequence[int] | None) -> Tensor:
            if numbers is None or not B:
                return sample_B
            return torch.as_tensor(numbers, dtype=torch.long) + sample_B[0]

        built = Rollout(
            prompt_ids_BP=prompt_ids_BP,
            prompt_length_B=prompt_length_B,
            token_ids_BT=token_ids_BT,
            length_B=length_B,
            mask_BT=mask_BT,
            group_B=numbered(group),
            sample_B=sample_B,
            records=tuple(row.record for row in rows),
            decode=ctx.tokenizer.decode,
            finish_reason=(finish_reason,) * B if isinstance(finish_reason, str) else tuple(finish_reason),
            source=(source,) * B if isinstance(source, str) else tuple(source),
            behaviour=behaviour,
            episode_B=numbered(episode),
        )
        return built.with_extra(**extra, **(columns or {}))

    def scored(self, reward_BT: Tensor, terms: Mapping[str, Tensor] | None = None) -> Scored:
        """Add rewards: [B, T], or [B] for the whole answer, which then sits on the last token of its mask.

        terms: each named reward before weighing, [B].
        """
        if reward_BT.dim() == 1:
            reward_BT = put_last(reward_BT, self.mask_BT)
        return Scored(**_as_kwargs(self), reward_BT=reward_BT.float(), terms=dict(terms or {}))


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored(Rollout):
    """Experience and what it was worth."""

    reward_BT: Tensor
    """The reward of each token, weighed and summed over the named rewards, float32 [B, T]; a reward for the whole answer
    sits on the last token of its mask."""
    terms: Mapping[str, Tensor]
    """Each named reward before weighing, float32 [B], by the reward's instance name."""

    @property
    def reward_B(self) -> Tensor:
        """The reward of each row, [B]: the sum over its tokens."""
        return self.reward_BT.sum(1)

    @property
    def episode_reward_B(self) -> Tensor:
        """The reward of each row's episode, [B]: the sum over its rows; `reward_B` where every row is its own episode."""
        return sum_shared(self.reward_B, self.episode_B)

    def with_reward(self, reward_BT: Tensor, **terms: Tensor) -> Scored:
        """The same rows with other rewards, [B, T], e.g. after a penalty; `terms`, [B] each, join the named ones."""
        return replace(self, reward_BT=reward_BT, terms={**self.terms, **terms})

    def advantaged(self, advantage: Tensor, **columns: Tensor) -> Advantaged:
        """Add advantages: [B, T], or [B] for all of a row's chosen tokens; `columns` join `extra`, as in `with_extra`."""
        if advantage.dim() == 1:
            advantage = advantage[:, None] * self.mask_BT
        plain = self.with_extra(**columns)
        return Advantaged(**_as_kwargs(plain), advantage_BT=advantage.float())


@dataclass(frozen=True, kw_only=True, eq=False)
class Advantaged(Scored):
    """Experience with credit per token."""

    advantage_BT: Tensor
    """The advantage of each token, in units of reward, float32 [B, T]; 0 where the mask is false."""


@dataclass(frozen=True, eq=False)
class Term:
    """What one named reward says: a value per row or token, and which rows it could judge."""

    value: Tensor
    """A number per row [B] or per token [B, T], before the reward's weight."""
    ok_B: Tensor | None = None
    """False for rows that could not be judged, bool [B]; the core drops and counts them. None: every row was judged."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Answers to one prompt in order, best first, as a person, a program or a simulated annotator put them.

    Two rows are a comparison, more are a ranking.
    """

    ranking: tuple[int, ...]
    """Rows of the batch, best first, each once."""
    annotator: str
    """Who judged: a person's name, or the component's."""
    gold: tuple[float, ...] | None = None
    """The rows' true rewards, in the order of `ranking`, where the annotator is simulated and knows them."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Anything else that should stay with it as JSON: strength, confidence, seconds taken."""


def _as_kwargs(batch: Batch) -> dict[str, Any]:
    return {f.name: getattr(batch, f.name) for f in fields(batch)}
