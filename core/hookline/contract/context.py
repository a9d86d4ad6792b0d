"""What a hook is given: the models in their roles, token statistics, training, data and randomness of one phase.

This page is the reference for plugin authors: a hook that asks for `ctx` gets an object with these names. The core's own
implementation is in `hookline.loop.context`; a type checker holds the two equal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, overload

import torch
from torch import Tensor, nn

from hookline.batch.encoded import Encoded
from hookline.batch.stages import Batch, Record, Rollout, Sampling, Term
from hookline.contract.engine import Completions
from hookline.contract.family import Side
from hookline.contract.loss import Loss, MicroBatch, Stats
from hookline.contract.process import Process
from hookline.contract.run import Run

__all__ = ["Context", "Heads", "NextToken", "Role", "Rows", "Task", "Tokenizer"]

B = TypeVar("B", bound=Batch)
Answer = TypeVar("Answer")
T = TypeVar("T")

Heads = Mapping[str, Callable[[int], nn.Module]] | Callable[[str], Callable[[int], nn.Module] | None]
"""Heads to take along from an earlier phase: by name, or chosen by a function; each made from the size of the states."""


class Tokenizer(Protocol):
    """Text to token ids and back. Ids are ints; `bos` begins a text and `eos` ends one."""

    bos: int
    """The id of the token that begins a text."""
    eos: int
    """The id of the token that ends one."""
    separator: int | None
    """The mark between a prompt and its answer, for tokenizers that have one."""
    inner: Any
    """The `tokenizers.Tokenizer` itself."""

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""

    @property
    def special(self) -> dict[str, int]:
        """`bos_token_id`, `eos_token_id` and `pad_token_id`, as a model's config names them."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens; text that looks like one stays text."""

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The same for many texts."""

    def prompt(self, text: str) -> list[int]:
        """A prompt as the model sees it: start, text, and the mark behind which the answer begins."""

    def answer(self, text: str) -> list[int]:
        """A response as the model should give it, the ending token included."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens."""


class Rows(Protocol):
    """The rows of a dataset, and their identity."""

    @property
    def name(self) -> str:
        """The data name, as the experiment says it."""

    @property
    def records(self) -> Sequence[Record]:
        """All rows, in the order of the file. A record of a large file is parsed each time it is read, so read one at a time."""

    @property
    def sha256(self) -> str:
        """The hash of the contents; a run that resumes on other data is refused."""

    def __len__(self) -> int:
        """The number of rows."""

    def placed(self) -> Iterator[tuple[str, Record]]:
        """Every record with where it stands, e.g. `pairs.jsonl row 17`, as messages name it."""

    def at(self, index: int) -> tuple[str, Record]:
        """One record, counted from 0, with where it stands."""

    def made(self, make: Callable[[Record, str], T]) -> Callable[[int], T]:
        """What `make(record, where)` makes of a row, by its number from 0; the last few thousand are remembered.

        For token ids, as of `ctx.encode`, which take more memory than the file: check every row once in `setup`, and have
        the rows of a step made again where they are not remembered.
        """

    def texts(self, field: str) -> Iterator[str]:
        """A field of all rows that have it and do not leave it empty. Raises DataError where it is not text."""


class Task(Protocol):
    """The task behind a data name, as `hookline.Task` describes it."""

    def rows(self, split: str) -> Sequence[Record]:
        """The rows of a split."""

    def process(self) -> Process | None:
        """The decision process behind the rows, for small tasks that have one."""

    def reward(self, record: Record, response: str) -> float:
        """What an answer to a row is worth."""

    def frontier(self, figure: str) -> Sequence[tuple[float, float]] | None:
        """The best any policy can do: points (KL to the reference in nats, value of the figure); None: not known."""

    def preference(self, record: Record, response: str, other: str) -> float:
        """The probability that `response` is preferred to `other`, in [0, 1]."""


class Role(Protocol):
    """One model in its role: the network, the heads on its trunk, and which of it learns."""

    name: str
    """The role's name, e.g. `policy`."""
    net: Any
    """The transformers network, an adapter around it included."""
    heads: nn.ModuleDict
    """The heads on its trunk, by name."""
    version: int
    """The number of optimiser steps taken on it in this phase; rows remember which version sampled them."""

    @property
    def context(self) -> int:
        """The most positions that the model takes, in tokens of prompt and response together."""

    @property
    def hidden_size(self) -> int:
        """H, the width of a hidden state, which heads are built for."""

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""

    @property
    def head(self) -> tuple[Tensor, Tensor | None]:
        """Weight [V, H] and bias [V] of the output layer."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter by name, tied ones once."""

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that learn."""

    def tensors(self) -> dict[str, Tensor]:
        """All that makes the model, by name: parameters and persistent buffers, each in its own shape."""


class NextToken(Protocol):
    """What a role predicts at the last position of each row."""

    logits_BV: Tensor
    """The logits of the next token, float32 [B, V]."""

    def head(self, name: str) -> Tensor:
        """What a head of the role says about the next token, float32 [B] or [B, k]."""


class Context(Protocol):
    """One component's view of the running phase."""

    # -- where we are

    @property
    def run(self) -> Run:
        """The run on disk: its directory, its rows, and `notice`, which prints a line."""

    @property
    def phase(self) -> str:
        """The phase's name."""

    @property
    def step(self) -> int:
        """Steps of this phase that are done; in an evaluation, batches drawn so far."""

    @property
    def steps(self) -> int:
        """Steps this phase has in all."""

    @property
    def evaluating(self) -> bool:
        """True while an evaluation draws and judges rows: rows come in file order, and nothing may learn from them."""

    @property
    def given(self) -> frozenset[str]:
        """What the components of this phase give: columns such as `return_BT`, `groups`, `behaviour`."""

    @property
    def brings_advantage(self) -> bool:
        """Whether this component answers hookline_advantage here. False for an update that could compute it, when the
        phase names a separate advantage."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer; to make token ids of a record, use `ctx.encode`."""

    @property
    def instance(self) -> str:
        """The name under which the experiment uses this component."""

    # -- randomness and data

    def key(self, purpose: str, *ids: object) -> tuple[object, ...]:
        """What a random number is for: (seed, phase, step, instance, purpose, ids); see `hookline.rng`."""

    def rng(self, purpose: str, *ids: object) -> torch.Generator:
        """A fresh generator that depends on the key alone, so that nothing has to be saved and nothing drifts."""

    def sample_ids(self, n: int) -> Tensor:
        """`n` sample ids, int64 [n], never handed out before in this run."""

    def rows(self, name: str) -> Rows:
        """All rows of a data name; its hash joins the run's manifest, and a resume on other data is refused."""

    def task(self, name: str) -> Task:
        """The task behind a data name such as `builtin:walks`: its rows, its own reward, its process."""

    def encode(
        self,
        record: Record,
        *,
        answer: str | None = "completion",
        where: str = "",
        longest: int | None = None,
        new_tokens: int = 0,
    ) -> Encoded:
        """A record as token ids: its `prompt`, and the answer in the field `answer` (None: the answer will be drawn).

        where: which record it is, as `Rows.placed` says it; errors begin with it. longest: positions there are for
        prompt, answer and `new_tokens` to be drawn. Raises DataError for a field that is missing or not text, and for a
        record that is too long; to skip such records, leave `longest` out and compare `len(encoded)`.
        """

    def encode_turn(self, previous: Sequence[Mapping[str, Any]], message: str) -> list[int]:
        """The ids that one more turn adds behind the chat messages `previous`; plain text has none before it."""

    def collected(self, phase: str) -> Rows:
        """What an earlier phase collected: the comparisons of all of its rounds so far, or of one, `NAME@ROUND`."""

    def take(self, total: int, n: int) -> list[int]:
        """Row numbers of the `n` of `total` rows that belong to this step; each epoch has a new order.

        They are a function of the step, so nothing has to be saved.

        In an evaluation rows come in file order, and fewer than `n`, then none, when they run out.
        """

    # -- models

    def role_named(self, name: str) -> Role:
        """A model by role, e.g. `policy`. Raises PluginError where there is none."""

    def role_with(self, head: str) -> str:
        """The name of the role that has a head, e.g. whose `value` an advantage should read."""

    def role(
        self,
        name: str,
        *,
        of: str = "policy",
        phase: str | None = None,
        frozen: bool = False,
        heads: Heads | None = None,
    ) -> Role:
        """Make a role, in `setup`: a copy of another role as it is at phase start, or the end of an earlier phase.

        phase: where there were rounds, the latest one; `NAME@ROUND` is that one. heads: those of that phase's end to
        take along, each with what makes it, or a function from a head's name to what makes it, None to leave it.
        Asking again for the same name gives the same role. A frozen copy of a policy whose adapter is new is the
        policy with its adapter off. Frozen roles are rebuilt on resume and their hash compared.
        """

    def head(
        self,
        name: str,
        make: Callable[[int], nn.Module],
        *,
        role: str = "policy",
        reads: Side = "before",
    ) -> None:
        """Put a head on a role's trunk, in `setup`: `make(hidden_size)` gives a module to [..., 1] or [..., k].

        `ctx.stats(batch, role, want=(name,))` reads it; `reads` says whether a token's figure comes from the state
        before it (values) or after it (rewards), or, `row`, is one per row, on its last chosen token. The model's family
        must have that side.
        """

    def target(self, name: str, of: str, *, role: str = "policy") -> None:
        """A frozen copy of a head, in `setup`, for slow targets; move it with `polyak` from `after=` of `ctx.train`.

        name: what `ctx.stats` reads it by. of: the head. role: the model that has the head.
        """

    def polyak(self, name: str, of: str, share: float, *, role: str = "policy") -> None:
        """Move a target towards the head it follows: target ← (1 − share) · target + share · head, share in [0, 1].

        name, of, role: as they were given to `ctx.target`.
        """

    # -- statistics and training

    def stats(self, batch: Batch, model: str = "policy", want: Sequence[str] = ("logprobs",)) -> Stats:
        """Figures per token without gradient, [B, T] float32, 0 where the mask is false; cached per weights version.

        model: the role. want: any of `logprobs`, `entropy`, `logsumexp` (in nats), `sum_sq_probs`, `top_p_mass` (in [0, 1]),
        `rank` (from 0; see `hookline.kernels.TokenStats`), and heads of that role by name. A
        head over the vocabulary has these too, e.g. `q.logsumexp`, without its [B, T, V] ever being there.
        Log-probs are taken under the batch's own sampling (temperature and kept ids), so ratios are on one support.
        """

    def train(
        self,
        batch: B,
        loss: Callable[[MicroBatch[B]], Loss],
        unit: Literal["row", "group"] = "row",
        after: Callable[[], None] | None = None,
        beside: tuple[Batch, Callable[[MicroBatch[Any]], Loss]] | None = None,
    ) -> None:
        """Epochs × minibatches optimiser steps of `loss`, whose gradient does not depend on how rows are split.

        loss: from a micro-batch to `mb.token_mean`, `mb.row_mean`, `mb.mean_over`, their sums and multiples; each is
        divided by the count of the whole optimiser step. unit: `group` keeps rows of a group together. after: called
        behind each optimiser step. beside: other rows and their loss, split into as many parts, whose gradient joins each
        optimiser step. Raises NumbersError before any weight changes when a value is not finite.
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
        """Answers from a role, one per prompt of token ids; B prompts give B answers of at most `max_new_tokens` tokens.

        sample_B: the rows' sample ids, int64 [B], from `ctx.sample_ids`; all randomness comes from these and the run's seed.
        sampling_: temperature, top-k and top-p. model: the role that answers.
        combine: from what `model` and the roles `beside` it say about the next token (a `NextToken` for each: logits,
        heads) to the logits [B, V] that are drawn from, e.g. a mixture of two policies, or a policy guided by values.
        greedy_B: rows that take the likeliest token each time, bool [B]; their log-probs are those of sampling all the same.
        """

    # -- figures, over all ranks

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        """Add `value` to a declared figure of this step, by name; `count` is its weight when means join.

        Does nothing in an evaluation. Raises PluginError for a figure that the component has not declared in `metrics`.
        """

    def sum(self, x: Tensor) -> float:
        """Sum over all entries of a tensor of any shape, on all ranks."""

    def mean(self, x: Tensor) -> float:
        """Mean over all entries of a tensor of any shape, on all ranks; 0 when there are none."""

    def max(self, x: Tensor) -> float:
        """Largest entry of a tensor of any shape, on all ranks."""

    # -- what comes from outside: clocks, services, people

    def wait(self, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
        """Run a coroutine on the run's event loop, from a hook that is a plain `def`, and return what it returns.

        Whatever a component keeps between calls (a session, a connection pool) then lives on one loop all through the
        run. Raises PluginError inside a coroutine: write `await` there.
        """

    @overload
    def once(self, key: object, fn: Callable[[], Coroutine[Any, Any, Answer]]) -> Awaitable[Answer]: ...

    @overload
    def once(self, key: object, fn: Callable[[], Answer]) -> Answer: ...

    def once(self, key: object, fn: Callable[[], Any]) -> Any:
        """What `fn()` answered, written to the run's journal before it is used; a resumed run reads it there.

        For what a second call would answer differently: a clock, a service, a person. key: tells this call from the
        component's other calls in the step: text, a number, or a tuple of these. Phase, evaluation, step and component
        are added to it. The first answer to a key stays.

        fn: sync, or `async def`; what an async one answers must be awaited: `await ctx.once(key, fn)`. Its answer is
        JSON or a tree of tensors (dicts with text keys, lists, numbers, text, None). It comes back as the journal holds
        it, in a resumed run or not: tuples are lists, tensors are on the CPU. Raises PluginError for anything else.
        Nothing is journaled when `fn` raises, nor where a finished run is only read.
        """

    async def each(
        self, rollout: Rollout, ask: Callable[[int], Awaitable[float]], *, timeout: float = 30.0, retries: int = 0
    ) -> Term:
        """Ask about every row at once: `ask(i)` answers one number for row i. Returns a `Term` of values [B].

        A row that fails, or takes longer than `timeout` seconds, is asked `retries` times more and is then not judged.

        Answers are journaled before use, as by `once`, under the row's sample id: a resumed run reads them, not the
        clock. An answer that is not finite is not journaled.
        """
