"""Judgements of a phase or a file, a few at each step: what the rollouts `judgements` and `preferences` have in common."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

import hookline
from hookline import Component, Context, DataError, DataName, Encoded, Encoder, Overlong, PhaseName, Record, Rollout
from hookline_plugins.rollouts.events import wanted
from hookline_plugins.splits import Split, in_split

__all__ = ["Reader", "Source"]


class Source(hookline.Config):
    """Which judgements are read, and how many at each step."""

    from_: PhaseName | None = Field(None, alias="from")
    """The phase whose judgements are read, with exactly the tokens that were sampled."""
    path: DataName | None = None
    """Alternatively, a file of events, or of rows with `prompt`, `chosen` and `rejected`."""
    split: Split = "all"
    """`heldout`: about a tenth of the prompts, chosen by a hash, which `train` never contains."""
    longest: int = Field(0, ge=0)
    """The maximum number of tokens of prompt and answer together; 0: the model's context."""
    overlong: Overlong = "leave-out"
    """What happens to judgements with a longer answer: `truncate` cuts its end, `refuse` ends the run."""
    rows: int = Field(32, ge=1)
    """Judgements per step (each is one row or more)."""

    @model_validator(mode="after")
    def _one_source(self) -> Source:
        if (self.from_ is None) == (self.path is None):
            raise ValueError("reads judgements either `from` a phase or from a `path`; name one")
        return self


SourceT = TypeVar("SourceT", bound=Source)


class Reader(Component[SourceT]):
    """Reads judgements, each of which is a group of rows. What makes rows of one derives from this and has `read_row`."""

    needs = property(lambda self: frozenset({"feedback"} if self.config.from_ else ()))
    unread: ClassVar[str]
    """What is said of judgements that give no rows."""
    judgement: Callable[[int], list[Encoded]]
    """The rows of the judgement in a row of the data."""

    @property
    def without(self) -> Collection[str]:
        """Annotators who are left out."""
        return ()

    def read_row(self, ctx: Encoder, record: Any, where: str, longest: int | None = None) -> list[Encoded]:
        """The answers that a judgement is about; none if it is not read."""
        raise NotImplementedError

    def prepare(self, records: Sequence[Any], rows: Sequence[int]) -> None:
        """Before rows are made: look at all judgements, of which those in `rows` are of the split. Default: nothing is needed of them."""

    def unfit(self, answers: Sequence[Encoded]) -> str:
        """Why a judgement is left out although its answers fit, for a notice. Default: it is not."""
        return ""

    def remark(self, ctx: Context, answers: Sequence[Encoded]) -> str:
        """What a notice says of a judgement that is read. Default: nothing."""
        return ""

    def asked(self) -> str:
        """What the judgements that are read have in common, for an error where there are none."""
        return f"are in split '{self.config.split}' and fit the context"

    def setup(self, ctx: Context) -> None:
        c = self.config
        source = ctx.collected(c.from_) if c.from_ else ctx.rows(str(c.path))
        longest = c.longest or ctx.role_named("policy").context
        rows = wanted(source.records, c.split, self.without)
        self.prepare(source.records, rows)
        self.judgement = source.made(lambda record, where: self.read_row(ctx, record, where, longest))
        self.judgements = array("q")
        left, remarks = Counter[str](), Counter[str]()
        for i in rows:
            answers = self.judgement(i)
            if not answers:
                left[self.unread] += 1
            elif max(map(len, answers)) > longest:
                left[f"are longer than {longest} tokens"] += 1
            elif why := self.unfit(answers):
                left[why] += 1
            else:
                self.judgements.append(i)
                remarks[self.remark(ctx, answers)] += 1
        if not self.judgements:
            raise DataError(
                f"{source.name}: 0 of {len(source)} judgements {self.asked()}",
                "check the split, the lengths, and what is said of the answers",
            )
        told = {f"{why} and were left out": count for why, count in left.items()} | {
            what: n for what, n in remarks.items() if what
        }
        for what, count in told.items():
            ctx.run.notice(f"{source.name}: {count} of {len(source)} judgements {what}")

    def reads_row(self, record: Record) -> bool:
        return in_split(record, self.config.split)

    def one_pass(self, ctx: Encoder, records: Sequence[Record]) -> tuple[int, int]:
        return len(wanted(records, self.config.split, self.without)), self.config.rows

    def drawn(self, ctx: Context) -> tuple[Rollout, Tensor]:
        """The rows of the next judgements, and for each row which row of the data its judgement is, int64 [B]."""
        places = [self.judgements[i] for i in ctx.take(len(self.judgements), self.config.rows)]
        said = [self.judgement(i) for i in places]
        rows = [answer for answers in said for answer in answers]
        group = [number for number, answers in enumerate(said) for _ in answers]
        number_B = torch.tensor([i for i, answers in zip(places, said) for _ in answers], dtype=torch.long)
        return Rollout.build(ctx, rows, source=self.config.from_ or self.config.path or "", group=group), number_B
