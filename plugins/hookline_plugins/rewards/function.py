"""A reward function of your own: a function or class of a Python file, written by columns or for another framework.

`reward: rewards.py:correct` is short for `{use: function, path: rewards.py, function: correct}`. How it is called is decided by the
names of its parameters; docs/rewards.md has the table. The file is hashed and copied into the run.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator

import hookline
from hookline import (
    CodePath,
    Component,
    Context,
    ExperimentError,
    HooklineError,
    Metric,
    NumbersError,
    PluginError,
    Record,
    Rollout,
    Term,
    hookimpl,
)
from hookline_plugins.rewards.apart import Apart, Ended
from hookline_plugins.rewards.calling import Late, Threads, awaited, call
from hookline_plugins.rewards.signatures import CALLED, Call, Signature
from hookline_plugins.rewards.verdicts import Verdict, Wrong
from hookline_plugins.user_code import load, place_of, said, trimmed


class Function(Component):
    """What a function of your file returns for each answer: a number, or None for an answer that cannot be judged.

    A function that raises ends the run; one that takes longer than `timeout`, or whose process dies, leaves its rows unjudged.
    """

    better = "higher"

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {"reward_kwargs": "arguments", "kwargs": "arguments", "file": "path"}
        path: CodePath
        """The Python file, relative to the experiment's file. It is copied into the run, alone: not what it imports from beside it."""
        function: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")
        """The function, or a class or object with `__call__`."""
        signature: Literal["auto", "trl", "verl", "openrlhf", "swift", "row", "verifiers", "inspect"] = "auto"
        """How the function is called; `auto` decides by the names of its parameters."""
        arguments: dict[str, Any] = Field(default_factory=dict)
        """Constants for parameters, by name."""
        columns: dict[str, str] = Field(default_factory=dict)
        """Parameter → column, where the names differ; `a.b` looks into objects, e.g. `{ground_truth: reward_model.ground_truth}`."""
        special_tokens: bool = False
        """True: answers have their special tokens, such as `<think>`, without the one that ended them."""
        timeout: float | None = Field(None, gt=0)
        """Seconds for each call, after which its rows are not judged; none: no limit. Without `process`, a call that hangs stays
        behind in a thread."""
        process: bool = False
        """True: a process of its own, which is killed at the timeout, so that the run goes on after a hang or a crash."""
        memory: float | None = Field(None, gt=0)
        """Limit of that process, in GiB of addresses; a function that imports torch needs at least 4."""

        @model_validator(mode="after")
        def _limits_a_process(self) -> Self:
            if self.memory is not None and not self.process:
                raise ValueError("has a limit of `memory`, which needs process: true")
            return self

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.threads, self.told = Threads(), False
        self.apart: Apart | None = None
        self.called = ""
        """The name in messages; FILE:FUNCTION if empty."""

    # -- the function, imported when it is first asked about

    @functools.cached_property
    def target(self) -> Callable[..., Any]:
        """The function, or the instance of a class."""
        return load(self.config.path, self.config.function)

    @functools.cached_property
    def signature(self) -> Signature:
        """What the function's parameters get."""
        c, who = self.config, self.called or f"{os.path.basename(self.config.path)}:{self.config.function}"
        found = Signature(self.target, who, c.signature, c.arguments, c.columns)
        if self.late and c.process:
            raise ExperimentError(f"{who} is async, and process: true is for plain functions", "leave out `process`; `timeout` works")
        return found

    @property
    def late(self) -> bool:
        """Whether the function is an `async def`."""
        return inspect.iscoroutinefunction(self.target) or inspect.iscoroutinefunction(getattr(self.target, "__call__", None))  # noqa: B004

    @property
    def code_line(self) -> str:
        """FILE:LINE of the function."""
        return place_of(self.target, self.config.path)

    @property
    def code_call(self) -> str:
        """How the function is called, as its parameters say."""
        return CALLED[self.signature.style]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The figures that the function returns beside its reward, or logs with `log_metric`."""
        _ = self.signature  # so that a file that cannot be imported is refused before the run starts
        return (
            Metric(f"function/{self.instance}/*", "mean over the numbers that the reward function gave under this name"),
            Metric(f"function/{self.instance}/missed", "rows whose call timed out or died", "rows", "sum", better="lower"),
        )

    def check_row(self, record: Record, where: str) -> None:
        self.signature.check(record, where)

    def close(self) -> Awaitable[None] | None:
        if self.apart is not None:
            self.apart.close()
        return None

    # -- asking it

    @hookimpl
    def hookline_reward(self, ctx: Context, rollout: Rollout) -> Term | Awaitable[Term]:
        for row in range(len(rollout)):
            self.signature.check(rollout.records[row], name_of(rollout, row))
        state = SimpleNamespace(global_step=ctx.step, max_steps=ctx.steps, epoch=ctx.step / max(1, ctx.steps))
        calls = [*self.signature.calls(rollout, self.config.special_tokens, state)] if len(rollout) else []
        if self.late:
            return self._awaited(ctx, rollout, calls)
        seed = ctx.rng("call").initial_seed()
        return self._term(ctx, rollout, calls, [self._verdict(rollout, one, seed) for one in calls])

    def _verdict(self, rollout: Rollout, one: Call, seed: int) -> Verdict:
        c, count = self.config, self._count(one)
        seed = (seed + (0 if self.signature.batched else 1_000_003 * (1 + int(rollout.sample_B[one.rows[0]])))) % 2**63
        try:
            if c.process:
                self.apart = self.apart or Apart(c.path, c.function, c.memory)
                return self.apart.call(one.keywords, one.logs, count, seed, c.timeout)
            work = functools.partial(call, self.target, one.keywords, one.logs, count, seed)
            return work() if c.timeout is None else self.threads.within(c.timeout, work)
        except (Exception, SystemExit) as err:
            return self._failed(rollout, one, err)

    async def _awaited(self, ctx: Context, rollout: Rollout, calls: list[Call]) -> Term:
        """All calls at once; answers are journaled, so that a resumed run does not ask a service again."""

        async def verdict(one: Call) -> Verdict:
            async def ask() -> Any:
                try:
                    found = await awaited(self.target, one.keywords, one.logs, self._count(one), self.config.timeout)
                except (Exception, SystemExit) as err:
                    found = self._failed(rollout, one, err)
                return {"values": found.values, "figures": found.figures, "missed": found.missed}

            return Verdict(**await ctx.once(("function", int(rollout.sample_B[one.rows[0]]), len(one.rows)), ask))

        tasks = [asyncio.ensure_future(verdict(one)) for one in calls]
        try:
            return self._term(ctx, rollout, calls, await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    def _count(self, one: Call) -> int:
        return len(one.rows) if self.signature.batched else 1 if self.signature.style == "openrlhf" else 0

    def _failed(self, rollout: Rollout, one: Call, err: BaseException) -> Verdict:
        """The verdict of a call that did not end; raises for all other failures."""
        where = name_of(rollout, one.rows[0])
        if self.signature.batched:
            where = f"the batch of {len(one.rows)} rows that begins with {where}"
        if isinstance(err, Late | Ended):
            why = f"no answer within {self.config.timeout:g} s" if isinstance(err, Late) else str(err)
            return Verdict([None] * len(one.rows), missed=f"{where}: {why}")
        if isinstance(err, Wrong):
            if err.row is not None:
                where = name_of(rollout, one.rows[err.row])
            if not err.finite:
                text = f"{where}: {self.signature.who} gave {err.what}; the weights are as before this step"
                raise NumbersError(text, "return a finite number, or None for an answer that cannot be judged") from None
            hint = "return one number for each answer" if self.signature.batched else "return a number"
            raise PluginError(f"{where}: {self.signature.who} returned {err.what}", f"{hint}, or None where it cannot judge") from None
        if isinstance(err, HooklineError):
            err.message = f"{where}: {err.message}"
            raise err
        raise PluginError(f"{where}: {said(err, self.config.path)}", f"the function: {self.code_line}") from trimmed(err)

    def _term(self, ctx: Context, rollout: Rollout, calls: list[Call], verdicts: list[Verdict]) -> Term:
        value_B = torch.zeros(len(rollout), dtype=torch.float64)
        ok_B = torch.zeros(len(rollout), dtype=torch.bool)
        missed = 0
        for one, verdict in zip(calls, verdicts):
            missed += len(one.rows) if verdict.missed else 0
            if verdict.missed and not self.told:
                self.told = True
                ctx.run.notice(f"'{self.instance}' did not judge {verdict.missed}; such rows are left out and counted")
            for row, value in zip(one.rows, verdict.values):
                if value is not None:
                    value_B[row], ok_B[row] = value, True
            for name, values in verdict.figures.items():
                ctx.log(f"function/{self.instance}/{name}", sum(values) / len(values), len(values))
        if self.config.timeout is not None or self.config.process:
            ctx.log(f"function/{self.instance}/missed", missed)
        return Term(value_B.float(), ok_B)


def name_of(rollout: Rollout, row: int) -> str:
    """A row in an error message: its place in the batch, its sample id and its prompt."""
    text = " ".join(rollout.prompt_text(row).split())
    return f"row {row} (sample {int(rollout.sample_B[row])}, '{text if len(text) <= 40 else f'{text[:39]}…'}')"
