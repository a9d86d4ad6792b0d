"""Judgements of every kind as rows: the rows of a group are the answers that one judgement is about.

Every row has these columns, beside `recorded_B` and `gold_B`, the true reward where a simulation knows it (else NaN):
    kind_B        what was said: 0 comparison, 1 ranking, 2 rating, 3 thumb, 4 correction, 5 spans (`KINDS`)
    outcome_B     of a comparison, on both rows: 0 the first row is better, 1 the second, 2 a tie, 3 both are bad; −1 elsewhere
    level_B       the place in a comparison, ranking or correction, higher is better; NaN where nothing is ordered
    strength_B    how much better in a comparison, 1 to 3; 0 if that was not said
    first_B       1 for the answer that was shown first, among several; 0 for others and where the order is not known
    mark:AXIS_B   for each axis that is read: the mark of a rating as a share of its scale, from 0 to 1; NaN where it has none
    levels_B      how many marks the scale has; 0 if it has any number between its ends, or there is no rating
    up_B          of a thumb: 1 up, 0 down; NaN elsewhere
    balance_B     N/(2 N_c), N_c the thumbs of all the data that point the same way; 1 elsewhere
    annotator_B   the number of the annotator, in the order in which annotators first come in the data
    answers_B     how many judgements of the data are comparisons or corrections of this annotator, at least 1
    data_row_B    which row of the data the judgement is, from 0
    worth_BT      the sum of the worths of the spans that a token is part of; a token is part of a span that covers any of it
    marked_BT     how many spans a token is part of
    changed_BT    of a correction: true for tokens that only this version has
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from math import nan
from typing import Any, Literal, get_args

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from hookline import (
    Comparison,
    Context,
    Correction,
    DataError,
    Encoded,
    Encoder,
    Event,
    Ranking,
    Rating,
    Record,
    Rollout,
    Span,
    Spans,
    Thumb,
    hookimpl,
)
from hookline_plugins.likelihoods import KINDS
from hookline_plugins.outputs import OVERALL, mark_column
from hookline_plugins.rollouts.events import PAIR, answer_of, event_of, text_of, token_places, wanted
from hookline_plugins.rollouts.reading import Reader, Source

Kind = Literal["comparison", "ranking", "rating", "thumb", "correction", "spans"]
COLUMNS = (
    "recorded_B", "gold_B", "kind_B", "outcome_B", "level_B", "strength_B", "first_B", "levels_B", "up_B", "balance_B",
    "annotator_B", "answers_B", "data_row_B", "worth_BT", "marked_BT", "changed_BT",
)  # fmt: skip


class Judgements(Reader["Judgements.Config"]):
    """Reads judgements of every kind, from an earlier phase or a file of events (`hookline.Event`).

    The reward of a row is its place in a comparison, ranking or correction, 1 or 0 for a thumb, the mean mark of a rating as a
    share of its scale. Comments and skips say nothing about rewards and are left out.
    """

    gives = property(
        lambda self: frozenset({"groups", "pairs", "judgements", *COLUMNS, *map(mark_column, self.config.read_axes)})
    )
    unread = "are of other kinds, or have no answer to learn from,"

    class Config(Source):
        kinds: tuple[Kind, ...] = get_args(Kind)
        """The kinds of judgements that are read; others are left out."""
        answers: Literal["all", "best"] = "all"
        """`best`: only answers that a judgement puts above others or likes, e.g. for `sft`; ratings and spans then have none."""
        without: tuple[str, ...] = ()
        """Annotators whose judgements are left out, such as those whom the report `hookline feedback` does not trust."""
        axes: tuple[str, ...] = ()
        """The axes of ratings that are read; of a head with several outputs, each is about the output of its name. Without it, each rating
        must have one axis, which is about the output `overall`."""
        unranked: Literal["leave-out", "below"] = "leave-out"
        """Candidates without a place in a ranking: not judged, or `below` all that have one, as when only the best were picked."""
        worths: Mapping[str, float] = Field(default_factory=dict)
        """Label of a span → what the span is worth, where the span itself does not say it; labels without a worth are refused."""

        @model_validator(mode="after")
        def _some_kind(self) -> Judgements.Config:
            if not self.kinds:
                raise ValueError("reads no kind of judgement; name one in `kinds`")
            return self

        @field_validator("axes")
        @classmethod
        def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
            if twice := next((axis for axis in value if value.count(axis) > 1), None):
                raise ValueError(f"names the axis '{twice}' twice")
            return value

        @property
        def read_axes(self) -> tuple[str, ...]:
            """The names under which marks are read."""
            return (self.axes or (OVERALL,)) if "rating" in self.kinds else ()

    annotators: Mapping[str, int] = {}
    """Annotator → its number."""
    answers: Mapping[str, int] = {}
    """Annotator → how many comparisons and corrections it gave."""
    balance: Mapping[bool, float] = {}
    """Whether a thumb is up → its weight."""

    @property
    def without(self) -> Collection[str]:
        return self.config.without

    def prepare(self, records: Sequence[Any], rows: Sequence[int]) -> None:
        self._refuse_unknown_axis(records)
        records = [records[i] for i in rows]
        names = dict.fromkeys(str(record.get("annotator") or "unknown") for record in records)
        self.annotators = {name: number for number, name in enumerate(names)}
        self.answers = _ordering(records, self.config.kinds)
        self.balance = _balance(records)

    def asked(self) -> str:
        return f"are in split '{self.config.split}', of the kinds {', '.join(self.config.kinds)} and fit the context"

    def one_pass(self, ctx: Encoder, records: Sequence[Record]) -> tuple[int, int]:
        c = self.config
        rows = wanted(records, c.split, c.without)
        return sum(_kind(records[i]) in c.kinds for i in rows), c.rows

    def read_row(self, ctx: Encoder, record: Any, where: str, longest: int | None = None) -> list[Encoded]:
        """The answers that a judgement is about, in the order of its candidates; none if it is not read."""
        how: Any = {"where": where, "longest": longest or self.config.longest or None, "overlong": self.config.overlong}
        event = event_of(record, where)
        said: Any = Comparison(better=0) if event is None else event.answer
        if event is None and "chosen" not in record:
            raise DataError(
                f"{where}: it is not a judgement: it has the columns {', '.join(record)}",
                "write `candidates` and an `answer`, or `chosen` and `rejected`; answers to learn as they are go with "
                "rollout: dataset",
            )
        if said.kind not in self.config.kinds:
            return []
        gold: Mapping[int, float | None] = {}
        if event is None:
            rows = {i: ctx.encode(record, answer=field, **how) for i, field in enumerate(PAIR)}
        else:
            self._refuse_empty_correction(event, where)
            rows = {i: answer_of(ctx, event, i, record, how) for i in self._judged(event)}
            gold = {i: candidate.gold for i, candidate in enumerate(event.candidates)}
        if not rows:
            return []
        changed = _changed([row.answer_ids for row in rows.values()]) if isinstance(said, Correction) else {}
        levels = self._levels(event, said)
        first = event.shown[0] if event and len(event.shown) > 1 else None
        annotator = event.annotator if event else str(record.get("annotator") or "unknown")
        up = said.up if isinstance(said, Thumb) else None
        marks, count = self._marks(said, where)
        found = []
        for number, (i, row) in enumerate(rows.items()):
            level = levels.get(i, nan)
            worth, marked = self._spans(ctx, event, said, row, how)
            values: dict[str, Any] = {
                "recorded_B": _reward(said, level, list(marks.values())),
                "gold_B": nan if gold.get(i) is None else gold[i],
                "kind_B": KINDS.index(said.kind),
                "outcome_B": _outcome(said),
                "level_B": level,
                "strength_B": float(said.strength or 0) if isinstance(said, Comparison) else 0.0,
                "first_B": float(i == first),
                **{mark_column(axis): mark for axis, mark in marks.items()},
                "levels_B": count,
                "up_B": nan if up is None else float(up),
                "balance_B": self.balance.get(bool(up), 1.0) if up is not None else 1.0,
                "annotator_B": self.annotators.get(annotator, 0),
                "answers_B": max(1, self.answers.get(annotator, 1)),
                "worth_BT": worth,
                "marked_BT": marked,
                "changed_BT": changed.get(number, [False] * len(row.answer_ids)),
            }
            columns = {name: torch.tensor(value) for name, value in values.items()}
            found.append(replace(row, columns={**row.columns, **columns}))
        if self.config.answers == "best":
            best = max((float(level) for level in levels.values()), default=nan)
            kept = [row for i, row in zip(rows, found) if levels.get(i) == best or getattr(said, "up", False)]
            return [] if len(levels) > 1 and len(kept) == len(found) else kept
        return found

    @staticmethod
    def _refuse_empty_correction(event: Event, where: str) -> None:
        said = event.answer
        if isinstance(said, Correction) and said.text == event.candidates[said.of].text:
            raise DataError(
                f"{where}: the correction by '{event.annotator}' changes nothing",
                "remove the row: a text that needs no correction is a thumb up or a rating",
            )

    def _judged(self, event: Event) -> Sequence[int]:
        """The candidates that become rows; the number after the last is what a correction made."""
        said = event.answer
        if isinstance(said, Comparison):
            return (0, 1)
        if isinstance(said, Ranking):
            placed = {i for group in said.order for i in group}
            return [i for i in range(len(event.candidates)) if i in placed or self.config.unranked == "below"]
        if isinstance(said, Correction):
            return (said.of, len(event.candidates))
        return (said.of,) if isinstance(said, Rating | Thumb | Spans) else ()

    def _levels(self, event: Event | None, said: Any) -> Mapping[int, float]:
        if event is None:
            return {0: 1.0, 1: 0.0}
        levels = {i: float(level) for i, level in (event.levels() or {}).items()}
        if isinstance(said, Ranking) and self.config.unranked == "below":
            return dict.fromkeys(range(len(event.candidates)), -1.0) | levels
        return levels

    def _marks(self, said: Any, where: str) -> tuple[dict[str, float], int]:
        """Axis → the mark of a rating as a share of its scale, and how many marks the scale has."""
        axes = self.config.read_axes
        if not isinstance(said, Rating):
            return dict.fromkeys(axes, nan), 0
        if not self.config.axes and len(said.marks) > 1:
            raise DataError(
                f"{where}: a rating has the axes {', '.join(said.marks)}",
                "name those to learn: axes: [" + ", ".join(said.marks) + "]",
            )
        given = said.marks if self.config.axes else {axes[0]: next(iter(said.marks.values()))}
        shares = {axis: (given[axis] - said.low) / (said.high - said.low) if axis in given else nan for axis in axes}
        return shares, round((said.high - said.low) / said.step) + 1 if said.step else 0

    def _refuse_unknown_axis(self, records: Sequence[Any]) -> None:
        """Raise DataError for an axis in `axes` that no rating has."""
        if not self.config.axes or "rating" not in self.config.kinds:
            return
        rated = dict.fromkeys(axis for record in records if _kind(record) == "rating" for axis in record["answer"].get("marks", ()))
        if unknown := next((axis for axis in self.config.axes if axis not in rated), None):
            raise DataError(
                f"no rating has the axis '{unknown}'", f"the axes of these ratings: {', '.join(rated) or 'none'}"
            )

    def _spans(
        self, ctx: Encoder, event: Event | None, said: Any, row: Encoded, how: Any
    ) -> tuple[list[float], list[int]]:
        """Of each token, the worth of the spans that it is part of, and how many they are."""
        worth, marked = [0.0] * len(row.answer_ids), [0] * len(row.answer_ids)
        if not isinstance(said, Spans) or event is None:
            return worth, marked
        cut = how["overlong"] == "truncate" and len(row) == how["longest"]
        places = token_places(ctx, row.answer_ids, text_of(event, said.of), how["where"], cut)
        for span in said.spans:
            value = self._worth(span, how["where"])
            for t, (start, end) in enumerate(places):
                if start < span.end and end > span.start:
                    worth[t] += value
                    marked[t] += 1
        return worth, marked

    def _worth(self, span: Span, where: str) -> float:
        worth = self.config.worths.get(span.label) if span.worth is None else span.worth
        if worth is None:
            raise DataError(
                f"{where}: the span '{span.label}' has no worth", f"say what it is worth: worths: {{{span.label}: -1}}"
            )
        return worth

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        rollout, number_B = self.drawn(ctx)
        columns = {} if len(rollout) else self._no_rows(rollout.token_ids_BT.shape[1])
        return rollout.with_extra(data_row_B=number_B, **columns)

    def _no_rows(self, T: int) -> dict[str, Tensor]:
        """The columns of a batch without rows, T tokens wide."""
        whole = {"kind_B", "outcome_B", "levels_B", "annotator_B", "answers_B"}
        plain = [name for name in COLUMNS if name != "data_row_B"]
        found = {name: torch.zeros(0, dtype=torch.long if name in whole else torch.float32) for name in plain}
        return found | {
            **{mark_column(axis): torch.zeros(0) for axis in self.config.read_axes},
            "worth_BT": torch.zeros(0, T),
            "marked_BT": torch.zeros(0, T, dtype=torch.long),
            "changed_BT": torch.zeros(0, T, dtype=torch.bool),
        }


def _balance(records: Sequence[Any]) -> dict[bool, float]:
    """The weight of a thumb up and of a thumb down, with which both have the same total."""
    answers = [record.get("answer") for record in records]
    count = Counter(
        bool(said.get("up")) for said in answers if isinstance(said, Mapping) and said.get("kind") == "thumb"
    )
    return {up: sum(count.values()) / (2 * n) for up, n in count.items()}


def _ordering(records: Sequence[Any], kinds: Sequence[Kind]) -> Mapping[str, int]:
    """Annotator → how many comparisons and corrections of these kinds it gave."""
    read = {"comparison", "correction"} & set(kinds)
    return Counter(str(record.get("annotator") or "unknown") for record in records if _kind(record) in read)


def _kind(record: Record) -> str:
    """The kind of judgement that a row is. A row without an event is a comparison, or a ranking of an earlier release."""
    answer = record.get("answer")
    return str(answer.get("kind")) if isinstance(answer, Mapping) else "ranking" if "ranking" in record else "comparison"


def _outcome(said: Any) -> int:
    return {0: 0, 1: 1, "tie": 2, "both-bad": 3}[said.better] if isinstance(said, Comparison) else -1


def _reward(said: Any, level: float, marks: Sequence[float]) -> float:
    """The reward that a row is paid where the phase names none."""
    if isinstance(said, Thumb):
        return float(said.up)
    if isinstance(said, Rating):
        given = [mark for mark in marks if mark == mark]
        return sum(given) / len(given) if given else 0.0
    return level if level == level else 0.0


def _changed(versions: Sequence[Sequence[int]]) -> dict[int, list[bool]]:
    """For the two versions of a corrected answer, which tokens only this version has."""
    before, after = versions
    same = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    kept = [{i for a, _, n in same for i in range(a, a + n)}, {i for _, b, n in same for i in range(b, b + n)}]
    return {which: [i not in kept[which] for i in range(len(ids))] for which, ids in enumerate(versions)}
