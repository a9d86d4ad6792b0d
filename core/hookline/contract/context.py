"""The object `ctx` that hooks receive: models by role, token statistics, training, data and randomness of one phase.

This page is the reference for plugin authors: a hook that asks for `ctx` gets an object with these names. The core's own
implementation is in `hookline.loop.context`; a type checker verifies that the two have the same signatures.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, overload

import torch
from torch import Tensor, nn

from hookline.batch.stages import Batch, Record, Rollout, Sampling, Term
from hookline.contract.encoder import Encoder
from hookline.contract.engine import Completions
from hookline.contract.family import Side
from hookline.contract.loss import Loss, MicroBatch, Stats, Support
from hookline.contract.process import Process
from hookline.contract.run import Run
from hookline.contract.store import Item

__all__ = ["Context", "Heads", "NextToken", "Role", "Rows", "Task"]

B = TypeVar("B", bound=Batch)
Answer = TypeVar("Answer")
Shared = TypeVar("Shared")
T = TypeVar("T")

Heads = Mapping[str, Callable[[int], nn.Module]] | Callable[[str], Callable[[int], nn.Module] | None]
"""Heads to load from an earlier phase: by name, or chosen by a function. Each is built from the hidden size."""


class Rows(Protocol):
    """The rows of a dataset, and their identity."""

    @property
    def name(self) -> str:
        """The data name, as it is written in the experiment."""

    @property
    def records(self) -> Sequence[Record]:
        """All rows, in the order of the file. A record of a large file is parsed on each access."""

    @property
    def sha256(self) -> str:
        """The hash of the contents; resuming a run with other data is refused."""

    def __len__(self) -> int:
        """The number of rows."""

    def placed(self) -> Iterator[tuple[str, Record]]:
        """Every record with its position for error messages, e.g. `pairs.jsonl row 17`."""

    def at(self, index: int) -> tuple[str, Record]:
        """The record at an index from 0, with its position for error messages."""

    def made(self, make: Callable[[Record, str], T]) -> Callable[[int], T]:
        """A function from a row's index to `make(record, where)`, which caches the last few thousand results.

        Use it for results that take more memory than the file, such as token ids from `ctx.encode`: check every row
        once in `setup`; rows that are no longer in the cache are made again when a step needs them.
        """

    def texts(self, field: str) -> Iterator[str]:
        """The values of a field that are present and not empty. Raises DataError for one that is not text."""


class Task(Protocol):
    """The task behind a data name, as `hookline.Task` describes it."""

    def rows(self, split: str) -> Sequence[Record]:
        """The rows of a split."""

    def process(self) -> Process | None:
        """The decision process behind the rows, for small tasks that have one; else None."""

    def reward(self, record: Record, response: str) -> float:
        """The reward of an answer to a row."""

    def frontier(self, figure: str) -> Sequence[tuple[float, float]] | None:
        """The best that any policy can reach: points (KL to the reference in nats, value of the figure), or None."""

    def preference(self, record: Record, response: str, other: str) -> float:
        """The probability that `response` is preferred to `other`, in [0, 1]."""


class Role(Protocol):
    """One model in its role: the network, the heads on its trunk, and which parameters learn."""

    name: str
    """The role's name, e.g. `policy`."""
    net: Any
    """The transformers network, including an adapter around it."""
    heads: nn.ModuleDict
    """The heads on its trunk, by name."""
    version: int
    """The number of optimiser steps taken on this role in this phase; rows record which version sampled them."""

    @property
    def context(self) -> int:
        """The maximum number of tokens of prompt and response together."""

    @property
    def hidden_size(self) -> int:
        """H, the width of a hidden state, which is the input size of heads."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""

    @property
    def head(self) -> tuple[Tensor, Tensor | None]:
        """Weight [V, H] and bias [V] of the output layer."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter by name; tied parameters appear once."""

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that learn."""

    def tensors(self) -> dict[str, Tensor]:
        """All parameters and persistent buffers by name, each in its own shape."""


class NextToken(Protocol):
    """What a role predicts at the last position of each row."""

    logits_BV: Tensor
    """The logits of the next token, float32 [B, V]."""

    def head(self, name: str) -> Tensor:
        """The output of a head of the role for the next token, float32 [B] or [B, k]."""


class Context(Encoder, Protocol):
    """One component's view of the running phase."""

    # -- the current phase and step

    @property
    def run(self) -> Run:
        """The run on disk: its directory, its rows, and `notice`, which prints a line."""

    @property
    def phase(self) -> str:
        """The phase's name."""

    @property
    def step(self) -> int:
        """The number of finished steps of this phase; in an evaluation, the number of batches drawn so far."""

    @property
    def steps(self) -> int:
        """The total number of steps of this phase."""

    @property
    def evaluating(self) -> bool:
        """True while an evaluation draws and judges rows: rows come in file order, and nothing may learn from them."""

    @property
    def given(self) -> frozenset[str]:
        """Everything that the components of this phase list in `gives`, e.g. `return_BT`, `groups`, `behaviour`."""

    @property
    def brings_advantage(self) -> bool:
        """Whether this component answers hookline_advantage in this phase. False for an update that could, when the
        phase names a separate advantage."""

    @property
    def instance(self) -> str:
        """The name under which the experiment uses this component."""

    # -- randomness and data

    def key(self, purpose: str, *ids: object) -> tuple[object, ...]:
        """The key of a random number: (seed, phase, step, instance, purpose, ids); see `hookline.rng`."""

    def rng(self, purpose: str, *ids: object) -> torch.Generator:
        """A new generator that depends only on the key, so that no generator state has to be saved."""

    def sample_ids(self, n: int) -> Tensor:
        """`n` new sample ids, int64 [n]; no id is used twice in a run. Every rank asks for those of its own rows."""

    def rows(self, name: str) -> Rows:
        """All rows of a data name. Their hash is recorded with the run, and resuming with other data is refused."""

    def task(self, name: str) -> Task:
        """The task of a data name such as `builtin:walks`: its rows, its reward, its process."""

    def collected(self, phase: str) -> Rows:
        """The comparisons that an earlier phase collected, in all its rounds so far or, as `NAME@ROUND`, in one."""

    def take(self, total: int, n: int) -> list[int]:
        """The indices of the `n` rows, out of `total`, that belong to this step; each epoch has a new order.

        With several processes, each gets its own part of these, possibly none.

        The indices are a function of the step, so nothing has to be saved.

        In an evaluation, rows come in file order; the last batch may have fewer than `n`, and after it there are none.
        """

    # -- models

    def role_named(self, name: str) -> Role:
        """The model in a role, e.g. `policy`. Raises PluginError if there is no such role."""

    def role_with(self, head: str) -> str:
        """The name of the role that has a head, e.g. of the role whose `value` an advantage should read."""

    def role(
        self,
        name: str,
        *,
        of: str = "policy",
        phase: str | None = None,
        path: str | None = None,
        frozen: bool = False,
        heads: Heads | None = None,
    ) -> Role:
        """Make a role, in `setup`: a copy of another role at the start of this phase, an earlier phase's model, or that
        of a folder.

        phase: the earlier phase; with rounds, `NAME` is the latest round and `NAME@ROUND` a particular one. path: the
        folder, from a config field of type `ModelPath`; its hash is recorded with the run. The score layer of a reward
        model's folder becomes the head `reward`, with as many figures per token as `hookline.score_labels` has names. Rows
        for the role have the ids of its own tokenizer: `ctx.encoder(path)`. heads: the
        heads of that phase to load, each with a function that builds it from the hidden size; or a function that
        returns this for a head's name, or None to omit the head. A second call with the same name returns the same
        role. A frozen copy of a policy with a new adapter is the policy with its adapter off. On resume, frozen roles
        are rebuilt and their hash is compared.
        """

    def encoder(self, path: str) -> Encoder:
        """How rows become tokens for the model of a folder: by the folder's own tokenizer and chat template.

        Its ids are for the role that `ctx.role(…, path=path)` makes. Raises DataError for a folder without a tokenizer.
        """

    def head(
        self,
        name: str,
        make: Callable[[int], nn.Module],
        *,
        role: str = "policy",
        reads: Side = "before",
    ) -> None:
        """Add a head to a role's trunk, in `setup`: `make(hidden_size)` returns a module whose output is [..., 1] or
        [..., k].

        Read the head with `ctx.stats(batch, role, want=(name,))`. reads: whether the figure of a token comes from the
        state before the token (`before`, e.g. values) or after it (`after`, e.g. rewards); `row` gives one figure per
        row, on its last chosen token. The model's family must have that side.
        """

    def parameter(self, name: str, start: Tensor, *, role: str = "policy", lr: float | None = None) -> nn.Parameter:
        """Add a parameter that no head has, in `setup`, e.g. the thresholds of a rating; a loss uses what this returns.

        It is learned with the role and saved beside its heads, as `own.NAME`; a phase that begins with the role's weights
        does not have it. start: its first value, float of any shape. lr: its peak learning rate, where that of the network
        would be too small; default: the role's. It is never decayed. A second call with the same name returns the same.
        """

    def target(self, name: str, of: str, *, role: str = "policy") -> None:
        """Make a frozen copy of a head, in `setup`, as a slow target; `polyak` in `after=` of `ctx.train` moves it.

        name: the name of the copy in `ctx.stats`. of: the name of the head. role: the role that has the head.
        """

    def polyak(self, name: str, of: str, share: float, *, role: str = "policy") -> None:
        """Move a target towards the head it follows: target ← (1 − share) · target + share · head, share in [0, 1].

        name, of, role: as in the call of `ctx.target`.
        """

    # -- statistics and training

    def stats(
        self,
        batch: Batch,
        model: str = "policy",
        want: Sequence[str] = ("logprobs",),
        support: Support | None = None,
    ) -> Stats:
        """Figures per token without gradient, float32 [B, T], 0 where the mask is false; cached per weights version.

        model: the role. want: any of `logprobs`, `entropy`, `logsumexp` (in nats), `sum_sq_probs`, `top_p_mass` (in [0,
        1]), `rank` (from 0; see `hookline.kernels.TokenStats`), and heads of that role by name. A head over the
        vocabulary has these statistics too, e.g. `q.logsumexp`; its [B, T, V] tensor is never materialised.

        Token statistics are computed at the temperature of the batch's own sampling. support: among which tokens, where
        top-k or top-p left some out: `kept` (those that were kept) for ratios to the behaviour and for policy
        gradients, `whole` (the vocabulary) for likelihoods and for the model on the right of a KL. Default: `kept` for
        the policy, `whole` for other roles. A batch without behaviour is data: whole vocabulary, temperature 1.
        """

    def train(
        self,
        batch: B,
        loss: Callable[[MicroBatch[B]], Loss],
        unit: Literal["row", "group"] = "row",
        after: Callable[[], None] | None = None,
        beside: tuple[Batch, Callable[[MicroBatch[Any]], Loss]] | None = None,
    ) -> None:
        """Take epochs × minibatches optimiser steps on `loss`; the gradient does not depend on how rows are split.

        loss: a function that receives a micro-batch `mb` and returns `mb.token_mean`, `mb.row_mean`, `mb.mean_over`, or
        sums and multiples of these; each mean is over the whole optimiser step. unit: `group` keeps the rows of a group
        together. after: called after each optimiser step. beside: other rows with their own loss; they are split into
        the same number of parts, and their gradient is added in each optimiser step. Raises NumbersError, before any
        weight changes, if a value is not finite.
        """

    def measure(
        self, batch: B, loss: Callable[[MicroBatch[B]], Loss], unit: Literal["row", "group"] = "row"
    ) -> Mapping[str, Term]:
        """What `loss` and the figures that it logs are on rows that are not learned from, for `held_out`.

        batch, loss, unit: as for `ctx.train`, whose loss over the same rows has the same value. No weight changes. Returns
        `loss` and each logged name, each with a value and a weight per row of the batch. An update calls it.
        """

    def draw(
        self,
        prompts: Sequence[Sequence[int]],
        sample_B: Tensor,
        *,
        sampling_: Sampling,
        max_new_tokens: int,
        model: str = "policy",
        beside: Sequence[str] = (),
        combine: Callable[[Mapping[str, Any]], Tensor] | None = None,
        greedy_B: Tensor | None = None,
    ) -> Completions:
        """Sample one answer per prompt from a role; B prompts give B answers of at most `max_new_tokens` tokens.

        prompts: the token ids of each prompt. sample_B: the rows' sample ids, int64 [B], from `ctx.sample_ids`; all
        randomness comes from these and the run's seed. sampling_: temperature, top-k and top-p. model: the role that
        answers. beside: additional roles, which are passed to `combine`. combine: a function from the predictions of
        `model` and the roles in `beside` (a `NextToken` for each: logits, heads) to the logits [B, V] to sample from,
        e.g. a mixture of two policies, or a policy guided by values. greedy_B: the rows that always take the likeliest
        token, bool [B]; their log-probs are still those under `sampling_`.
        """

    # -- figures, over all ranks

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        """Add `value` to a declared figure of this step, by name; `count` is its weight in a mean.

        Does nothing in an evaluation. Raises PluginError for a figure that the component has not declared in `metrics`.
        """

    # Every rank calls these in the same order, whether it has rows or not, and never inside a loss.

    def sum(self, x: Tensor | float) -> float:
        """Sum over all entries of a tensor of any shape, or of a number, on all ranks."""

    def mean(self, x: Tensor) -> float:
        """Mean over all entries of a tensor of any shape, on all ranks; 0 when there are none."""

    def max(self, x: Tensor) -> float:
        """Maximum over all entries of a tensor of any shape, on all ranks; -inf when there are none."""

    def gather(self, value: Shared) -> list[Shared]:
        """The values that all ranks give, by rank, on every rank. They are copied with pickle."""

    def shard(self, items: Sequence[Shared]) -> Sequence[Shared]:
        """The items that are this rank's, e.g. prompts that do not come from `ctx.take`, which shards already.

        With one process these are all items. Each item is on exactly one rank, and the rows of a group must be on one.
        """

    def main(self, ask: Callable[[], Answer]) -> Answer:
        """Call `ask()` on rank 0 alone and return its answer on every rank; for whatever touches the outside of the run
        and is not about one row. The answer is copied with pickle.
        """

    # -- answers from outside the run: clocks, services, people

    def wait(self, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
        """Run a coroutine on the run's event loop, from a hook that is a plain `def`, and return its result.

        Objects that a component keeps between calls (a session, a connection pool) then belong to one event loop during
        the whole run. Raises PluginError inside a coroutine: use `await` there.
        """

    @overload
    def once(self, key: object, fn: Callable[[], Coroutine[Any, Any, Answer]]) -> Awaitable[Answer]: ...

    @overload
    def once(self, key: object, fn: Callable[[], Answer]) -> Answer: ...

    def once(self, key: object, fn: Callable[[], Any]) -> Any:
        """Call `fn()` and journal its answer before returning it; a resumed run reads the answer from the journal.

        Use it for anything that a second call could answer differently: a clock, a service, a person. key: identifies
        this call among the component's other calls in the step: text, a number, or a tuple of these. Phase, evaluation,
        step and component are added to the key. If a key is used twice, its first answer is returned.

        fn: a plain function or an `async def`; for the latter, write `await ctx.once(key, fn)`. The answer must be JSON
        or a tree of tensors (dicts with text keys, lists, numbers, text, None); PluginError is raised for anything
        else. The answer is always returned as the journal stores it: tuples become lists, and tensors are on the CPU.
        Nothing is journaled if `fn` raises, or if a finished run is only read.
        """

    async def pause(self, seconds: float) -> None:
        """Let time pass while the component waits for somebody. If the run is asked to stop meanwhile, it stops here, with
        the newest save, instead of finishing the step first."""

    def item(self, rollout: Rollout, rows: Sequence[int], **more: Any) -> Item:
        """Rows that answer one prompt as an item for a store: the conversation, the answers with their tokens, and which run,
        phase, step and weights wrote them. more: further fields of hookline.Item, e.g. `overlap`."""

    async def each(
        self, rollout: Rollout, ask: Callable[[int], Awaitable[float]], *, timeout: float = 30.0, retries: int = 0
    ) -> Term:
        """Call `ask(i)`, which returns one number for row i, for all rows concurrently. Returns a `Term` of values [B].

        If a call fails or takes longer than `timeout` seconds, it is repeated up to `retries` times; after that, the
        row counts as not judged.

        Answers are journaled under the row's sample id before they are used, as in `once`, so a resumed run does not
        ask again. An answer that is not finite is not journaled.
        """
