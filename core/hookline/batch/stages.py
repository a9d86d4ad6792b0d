"""The data contract: one frozen type per stage, each with more fields than the last:
`Batch → Rollout → Scored → Advantaged`.

Letters in names are shapes: B rows, P prompt tokens, T response tokens. All tensors are right-padded, every row has at
least one prompt token (in plain text: the first token), and `mask_BT` is true where the policy chose the token; it may
be false in between (tool output, other speakers). The name of an extra column ends in `_B`, `_BP` or `_BT`, and this
suffix decides how the column is sliced, trimmed and saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from hookline.batch.columns import check_column, pad_rows, put_last, sum_shared
from hookline.batch.encoded import Encoded, Record, learned, own, stacked
from hookline.batch.sampling import KeptIds, Sampling

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from hookline.batch.lazily import torch

__all__ = [
    "Advantaged",
    "Batch",
    "Behaviour",
    "KeptIds",
    "Record",
    "Rollout",
    "Sampling",
    "Scored",
    "Term",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Behaviour:
    """How the tokens were drawn: the version of the weights, the distribution, and the log-probs."""

    logprobs_BT: Tensor
    """Log-prob of each token under `sampling`, in nats, float32 [B, T]; 0 where the mask is false."""
    version_BT: Tensor
    """The version of the weights that drew the token, i.e. the policy's optimiser steps in this phase, int64 [B, T]."""
    sampling: Sampling
    """The distribution that `logprobs_BT` refer to."""
    support: KeptIds | None = None
    """The kept ids if `sampling` truncates, because ratios must be computed on the same support; else None."""
    ends: tuple[int, ...] = ()
    """The ids of the tokens that end an answer, which a minimum length excludes at its beginning."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Rows of tokens, each a prompt and a response. Hooks may read a batch and add columns, but not change it in
    place."""

    prompt_ids_BP: Tensor
    """Token ids of the prompts, int64 [B, P], right-padded with 0."""
    prompt_length_B: Tensor
    """The number of tokens of each prompt, at least 1, int64 [B]."""
    token_ids_BT: Tensor
    """Token ids of the responses, int64 [B, T], right-padded with 0, including the ending token."""
    length_B: Tensor
    """The number of tokens of each response, int64 [B], including tokens that the policy did not choose."""
    mask_BT: Tensor
    """True where the policy chose the token, bool [B, T]; false in padding and, e.g., for the output of a tool."""
    group_B: Tensor
    """The group of each row, int64 [B]. Rows of one prompt share a group; a group's number is never reused within a
    run."""
    sample_B: Tensor
    """The sample id of each row, int64 [B]; never reused within a run."""
    records: tuple[Record, ...]
    """The dataset row behind each row of the batch."""
    decode: Callable[[Sequence[int]], str]
    """A function from token ids to text."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """Extra columns by name: `NAME_B` [B, …], `NAME_BP` [B, P, …] or `NAME_BT` [B, T, …]."""

    @classmethod
    def of_ids(cls, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Batch:
        """Rows of token ids alone, without records or sample ids of a run; every answer token is in the mask."""
        prompt_ids_BP, prompt_length_B = pad_rows(prompts)
        token_ids_BT, length_B = pad_rows(answers)
        row_B = torch.arange(len(prompts))
        return Batch(
            prompt_ids_BP=prompt_ids_BP, prompt_length_B=prompt_length_B, token_ids_BT=token_ids_BT, length_B=length_B,
            mask_BT=torch.arange(token_ids_BT.shape[1]) < length_B[:, None], group_B=row_B, sample_B=row_B,
            records=({},) * len(prompts), decode=lambda ids: "",
        )  # fmt: skip

    def __len__(self) -> int:
        """B, the number of rows."""
        return self.token_ids_BT.shape[0]

    def prompt_ids(self, row: int) -> list[int]:
        """The token ids of one row's prompt, without padding."""
        ids: list[int] = self.prompt_ids_BP[row, : int(self.prompt_length_B[row])].tolist()
        return ids

    def response_ids(self, row: int) -> list[int]:
        """The token ids of one row's response, without padding, including the ending token."""
        ids: list[int] = self.token_ids_BT[row, : int(self.length_B[row])].tolist()
        return ids

    def prompt_text(self, row: int, special: bool = False) -> str:
        """One row's prompt as text; special: with special tokens, such as those that a chat template writes."""
        return self._text(self.prompt_ids(row), special)

    def response_text(self, row: int, special: bool = False) -> str:
        """One row's response as text; special: with special tokens, such as the ending token."""
        return self._text(self.response_ids(row), special)

    def _text(self, ids: Sequence[int], special: bool) -> str:
        return self.decode(ids, special=True) if special else self.decode(ids)  # type: ignore[call-arg]

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of this stage by name, each [B, …], e.g. `mask_BT`, `behaviour.logprobs_BT`,
        `extra[value_BT]`."""
        found: dict[str, Tensor] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, torch.Tensor):
                found[f.name] = value
            elif isinstance(value, Behaviour):
                found |= {"behaviour.logprobs_BT": value.logprobs_BT, "behaviour.version_BT": value.version_BT}
            elif isinstance(value, Mapping):
                found |= {f"{f.name}[{name}]": column for name, column in value.items()}
        return found

    def to(self, device: torch.device | str) -> Self:
        """The same batch with every tensor on a device; returns `self` if all tensors are on that device already.

        Between hooks, batches are on the CPU. The core moves them to the device of a role; components never have to.
        """
        there = torch.device(device)

        def move(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
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
        """The same batch with additional columns: `NAME_B` [B, …], `NAME_BP` [B, P, …], `NAME_BT` [B, T, …].

        An existing column of the same name is replaced. Raises ValueError if the shape does not match the suffix of the
        name.
        """
        for name, column in columns.items():
            check_column(name, column, self.token_ids_BT.shape, self.prompt_ids_BP.shape)
        return replace(self, extra={**self.extra, **columns})

    def rows(self, index_N: Tensor | Sequence[int]) -> Self:
        """Some of the rows, trimmed to their longest prompt and response.

        index_N: row indices, int64 [N], in any order and possibly repeated; or a boolean per row, bool [B].
        """
        index = torch.as_tensor(index_N, device=self.token_ids_BT.device)
        index = index.nonzero()[:, 0] if index.dtype == torch.bool else index.long()
        P = max(1, int(self.prompt_length_B[index].max())) if len(index) else 1
        T = int(self.length_B[index].max()) if len(index) else 0
        old_T = self.token_ids_BT.shape[1]

        def cut(name: str, value: Any) -> Any:
            if isinstance(value, torch.Tensor):
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
    """The part of a tokenizer that a batch needs."""

    def decode(self, ids: Sequence[int]) -> str: ...


class Numbers(Protocol):
    """The part of a context that is needed to build a rollout."""

    @property
    def tokenizer(self) -> Decodes: ...

    def sample_ids(self, n: int) -> Tensor: ...


class Drawn(Protocol):
    """The part of `hookline.Completions` that is needed to build a rollout."""

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
    """Rows that were sampled from the policy, or read from a dataset (then without behaviour)."""

    finish_reason: tuple[str, ...]
    """Per row: `stop` (the policy ended it), `length` (it reached the limit), or `recorded` (read from data)."""
    source: tuple[str, ...]
    """Per row: its producer, e.g. `policy` or the dataset's name."""
    behaviour: Behaviour | None = None
    """How the tokens were drawn; None for rows that were read from data."""
    episode_B: Tensor = None  # type: ignore[assignment]
    """The episode of each row, int64 [B]. Rows of one episode share its number and a group; statistics of a group count
    an episode once. By default, every row is its own episode, with its sample id as number."""

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
        """Make a rollout from encoded rows; with `drawn`, from the prompts of the rows and the drawn answers.

        rows: the rows of the batch, possibly none. drawn: the answers of `ctx.draw` to their prompts, in the same
        order; the rollout has their finish reasons and behaviour, and every drawn token is in the mask. source: the
        producer of the rows, one name for all or one per row. sample_B: sample ids that were used for drawing; default:
        new ids. group, episode: a number per row, shared by the rows of one prompt or one
        episode, whose id becomes the sample id of their first row; default: each row is its own group and episode.
        finish_reason: one for all or one per row. columns: extra columns, in addition to those of the encoded rows.
        Raises ValueError if counts or shapes do not match.
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
            first: dict[int, int] = {}
            for row, number in enumerate(numbers):
                first.setdefault(int(number), row)
            return sample_B[[first[int(number)] for number in numbers]]

        distinct = {id(row.record): row.record for row in rows}  # several answers to one prompt share its record
        copies = {key: own(record) for key, record in distinct.items()}
        built = Rollout(
            prompt_ids_BP=prompt_ids_BP,
            prompt_length_B=prompt_length_B,
            token_ids_BT=token_ids_BT,
            length_B=length_B,
            mask_BT=mask_BT,
            group_B=numbered(group),
            sample_B=sample_B,
            records=tuple(copies[id(row.record)] for row in rows),
            decode=ctx.tokenizer.decode,
            finish_reason=(finish_reason,) * B if isinstance(finish_reason, str) else tuple(finish_reason),
            source=(source,) * B if isinstance(source, str) else tuple(source),
            behaviour=behaviour,
            episode_B=numbered(episode),
        )
        return built.with_extra(**extra, **(columns or {}))

    def response_text(self, row: int, special: bool = False) -> str:
        """One row's response as text; special: with special tokens, except for the one that ends it."""
        ids = self.response_ids(row)
        if special and self.finish_reason[row] != "length" and not self.decode(ids[-1:]):
            ids = ids[:-1]
        return self._text(ids, special)

    def scored(self, reward_BT: Tensor, terms: Mapping[str, Tensor] | None = None) -> Scored:
        """Add rewards: [B, T] per token, or [B] per answer, which are put on the last token in the mask.

        A reward on a token that the policy did not choose does not count: it becomes 0.
        terms: each named reward before it is weighted, [B].
        """
        if reward_BT.dim() == 1:
            reward_BT = put_last(reward_BT, self.mask_BT)
        reward_BT = torch.where(self.mask_BT, reward_BT.float(), 0.0)
        return Scored(**_as_kwargs(self), reward_BT=reward_BT, terms=dict(terms or {}))


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored(Rollout):
    """Rows with rewards."""

    reward_BT: Tensor
    """The reward of each token, weighted and summed over the named rewards, float32 [B, T]; a reward for a whole answer
    is on its last token in the mask, and one where the mask is false (a tool's output) does not count and is 0."""
    terms: Mapping[str, Tensor]
    """Each named reward before it is weighted, float32 [B], by the reward's instance name."""

    @property
    def reward_B(self) -> Tensor:
        """The reward of each row, [B]: the sum over its tokens."""
        return self.reward_BT.sum(1)

    @property
    def episode_reward_B(self) -> Tensor:
        """The reward of each row's episode, [B]: the sum over the rows of the episode; equals `reward_B` if every row
        is its own episode."""
        return sum_shared(self.reward_B, self.episode_B)

    def with_reward(self, reward_BT: Tensor, **terms: Tensor) -> Scored:
        """The same rows with other rewards, [B, T], e.g. after a penalty; rewards where the mask is false become 0.
        `terms`, each [B], are added to the named rewards."""
        reward_BT = torch.where(self.mask_BT, reward_BT, 0.0)
        return replace(self, reward_BT=reward_BT, terms={**self.terms, **terms})

    def advantaged(self, advantage: Tensor, **columns: Tensor) -> Advantaged:
        """Add advantages: [B, T], or [B] for all chosen tokens of a row; `columns` are added as in `with_extra`."""
        if advantage.dim() == 1:
            advantage = advantage[:, None] * self.mask_BT
        plain = self.with_extra(**columns)
        return Advantaged(**_as_kwargs(plain), advantage_BT=advantage.float())


@dataclass(frozen=True, kw_only=True, eq=False)
class Advantaged(Scored):
    """Rows with an advantage per token."""

    advantage_BT: Tensor
    """The advantage of each token, in units of reward, float32 [B, T]; 0 where the mask is false."""


@dataclass(frozen=True, eq=False)
class Term:
    """The answer of one reward: a value per row or token, and the rows that could be judged."""

    value: Tensor
    """A number per row [B] or per token [B, T], before it is weighted."""
    ok_B: Tensor | None = None
    """False for rows that could not be judged, bool [B]; the core drops and counts them. None: every row was judged."""
    weight_B: Tensor | None = None
    """What each row counts in the figure of an evaluation, float [B], e.g. its tokens; None: 1. Training does not use it."""
    summary: Literal["mean", "perplexity"] = "mean"
    """The figure of an evaluation: the weighted mean of the rows, or exp of the weighted mean of log `value`."""


def _as_kwargs(batch: Batch) -> dict[str, Any]:
    return {f.name: getattr(batch, f.name) for f in fields(batch)}
