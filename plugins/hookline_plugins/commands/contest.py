"""`hookline contest`: which of two models answers better, by people and judges."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

import hookline
from hookline import Argument, Column, Command, Estimate, ExperimentError, Out, StoreName, Table
from hookline_plugins.commands.figures import plain
from hookline_plugins.sampling import AnswerOptions

SHARE = ".3f"


class Contest(Command):
    """Which model answers better, by people and judges: put the answers of runs to the same prompts into a store, and report.

    With RUNs, each is paired with the first one, blinded, and waits to be judged: by people (`hookline collect --store STORE`)
    or a judge (`hookline judge STORE`). Without RUNs, it reports what was said so far, as often as you like.
    """

    class Config(AnswerOptions):
        only: ClassVar[str] = "--prompts"

        models: Annotated[tuple[str, ...], Argument("RUN…")] = ()
        """Runs or sweeps, or with --prompts also model folders, each optionally as LABEL=PATH; the first one is the baseline."""
        store: StoreName
        """Where items and answers are kept, `sqlite:///eval.db` or `eval.jsonl`: one for each contest."""
        prompts: str | None = None
        """A data name whose prompts are answered now. Default: what the runs answered in their last evaluation."""
        phase: str | None = None
        """Whose evaluation, or whose model; default: the last."""
        rows: int | None = Field(None, ge=1)
        """The number of prompts, drawn at random; default: all."""
        ask: Literal["comparison", "rating"] = "comparison"
        """Which is better, or marks for each answer by itself."""
        axes: tuple[str, ...] = ()
        """Of a rating: what is marked, e.g. `helpful`. May be repeated."""
        scale: str = "1-5"
        """Of a rating: `1-5`, or `0-1` for a slider."""
        text: str = ""
        """The question in words; default: the page's own."""
        overlap: int = Field(1, ge=1)
        """How many annotators judge each item."""
        seed: int = 0
        """Of the answers, and of the choice and the order of prompts."""

    def run(self, out: Out) -> int:
        c = self.config
        if not c.prompts:
            c.check_idle()
        if c.models:
            return self._put(out)
        with hookline.store(c.store, create=False) as store:
            found = hookline.contests(store.items(), store.events())
        out.value([_plain(one) for one in found])
        for number, one in enumerate(found):
            _show(one, out, blank=number > 0)
        return 0

    def _put(self, out: Out) -> int:
        from hookline_plugins.asking import question_by_options

        c = self.config
        if c.axes and c.ask != "rating":
            raise ExperimentError("--axes are marked in a rating", "add --ask rating")
        asked = question_by_options({"kind": c.ask, "axes": c.axes, "text": c.text}, c.scale)
        ask = {key: list(value) if isinstance(value, tuple) else value for key, value in asked.model_dump(exclude_defaults=True).items()}
        how = {**c.drawing(), **c.model_dump(include={"prompts", "phase", "overlap", "seed"})}
        with hookline.store(c.store) as store:  # before minutes of drawing
            items, new = hookline.put_contest(store, c.models, most=c.rows, ask=ask, **how)
            counts = store.counts()
        pairs = {tuple(item.extra["contest"]["between"]): item.extra["contest"] for item in items}
        out.value({"store": c.store, "items": len(items), "new": new, "between": [list(pair) for pair in pairs]})
        for base, other in pairs:
            out.text(f"{other} against {base}")
        alike = sum(about["identical"] for about in pairs.values())
        out.text(
            f"{c.store}: {len(items)} items ({new} new), {counts.complete} complete"
            + (f"; {alike} prompts were answered alike and are not asked" if alike else "")
        )
        out.text(f"ask people: hookline collect --store {c.store}; a judge: hookline judge {c.store} --model MODEL --url URL")
        out.text(f"what they say, at any time: hookline contest --store {c.store}")
        return 0


def _plain(one: Any) -> dict[str, Any]:
    values = asdict(one)
    del values["scores"]
    return plain({**values, "runs": {str(seed): ids for seed, ids in one.runs.items()}})  # type: ignore[no-any-return]


def _show(one: Any, out: Out, blank: bool) -> None:
    seeds = f", {len(one.runs)} seeds" if len(one.runs) > 1 else ""
    out.text(f"{chr(10) * blank}{one.other} against {one.baseline}: {one.asked} prompts{seeds}")
    if one.preferred:
        _preferred(one, out)
    if one.marked:
        _marked(one, out)
    if one.sameness:
        _sameness(one, out)
    for each in one.preferred:
        out.text(f"{each.by}: {each.state}{_why(each.test)}")
    for each in one.marked:
        out.text(f"{each.by}, {each.axis}: {each.state}{_why(each.test)}")
    if one.identical:
        out.text(f"{one.identical} more prompts were answered alike; with them as ties, the win rate is `with alike`")


def _why(test: Any) -> str:
    if test.decided_at is not None:
        return f", after {test.decided_at} prompts"
    return f" ({test.answers} prompts so far)"


def _preferred(one: Any, out: Out) -> None:
    columns = [
        *map(Column, ("by", "answers", "prompts", "wins", "ties", "losses")), Column("both_bad", "both bad"),
        Column("rate", "win rate", SHARE), Column("ends", "95 %", SHARE, ends=True), Column("always", "at any time", SHARE, ends=True),
        Column("p", "p at any time", ".2g"), Column("controlled", "length-controlled", SHARE), Column("alpha", "α", ".2f"),
    ]  # fmt: skip
    if one.identical:
        columns.append(Column("with_identical", "with alike", SHARE))
    table = Table("preferred", tuple(columns))
    for each in one.preferred:
        table.add(
            **{name: getattr(each, name) for name in ("by", "answers", "prompts", "wins", "ties", "losses", "both_bad")},
            rate=each.rate.value, ends=each.rate, always=each.test, p=each.test.p, controlled=each.length_controlled,
            alpha=each.agreement.value, **({"with_identical": each.with_identical} if one.identical else {}),
        )  # fmt: skip
    table.show(out)


def _marked(one: Any, out: Out) -> None:
    columns = [Column("by"), Column("axis"), Column("prompts")]
    for name, title in (("baseline", one.baseline), ("other", one.other), ("difference", "difference")):
        columns += [Column(name, title, ".2f"), Column(f"{name}_ends", "95 %", ".2f", ends=True)]
    table = Table("marked", (*columns, Column("p", "p at any time", ".2g"), Column("alpha", "α", ".2f")))
    for each in one.marked:
        parts: dict[str, Any] = {}
        for name in ("baseline", "other", "difference"):
            found: Estimate = getattr(each, name)
            parts |= {name: found.value, f"{name}_ends": found}
        table.add(by=each.by, axis=each.axis, prompts=each.prompts, **parts, p=each.test.p, alpha=each.agreement.value)
    table.show(out)


def _sameness(one: Any, out: Out) -> None:
    table = Table(
        "sameness",
        (
            Column("judge"), Column("what"), Column("prompts"), Column("same", "as people", SHARE),
            Column("ends", "95 %", SHARE, ends=True), Column("alpha", "α", ".2f"),
        ),
    )  # fmt: skip
    for each in one.sameness:
        table.add(
            judge=each.judge, what=each.what, prompts=each.prompts, same=each.same.value, ends=each.same, alpha=each.agreement.value
        )
    table.show(out)
