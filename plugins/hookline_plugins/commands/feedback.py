"""`hookline feedback`: whom to trust, how far annotators agree, which model is better, what a reward model is worth, what to ask next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field

import hookline
from hookline import Argument, Column, Command, DataError, Estimate, Out, Table
from hookline_plugins.commands.figures import plain
from hookline_plugins.splits import Split, in_split

SHARE = ".2f"


class Feedback(Command):
    """Which annotators to trust, which model is better, what a reward model can reach, and what to ask next: from a file, a store or
    a run with judgements."""

    class Config(hookline.Config):
        source: Annotated[str, Argument("FILE|RUN")]
        """A file of events (hookline.Event), a store such as `sqlite:///answers.db`, a run, or RUN/phases/NAME."""
        model: str | None = None
        """A run that trained a reward model, or RUN/phases/NAME: its accuracy beside the ceiling, calibration and biases."""
        subset: str = ""
        """With --model: a field of the events' rows by which accuracy is split."""
        split: Split = "all"
        """With --model: only the prompts of this split of the rollout `judgements`; `split: train` does not read `heldout`."""
        output: str = ""
        """With --model: which of several outputs of its head `reward` is read, by its name."""
        most: int = Field(10, ge=1)
        """The number of questions that are listed."""

    def run(self, out: Out) -> int:
        c = self.config
        events = hookline.read_events(c.source)
        judged = hookline.annotators(events, most=c.most)
        model = None
        if c.model:
            how: Any = {"subset": c.subset, "output": c.output, "most": c.most, "judged": judged}
            asked = [event for event in events if in_split(event.written(), c.split)]
            model = hookline.judge_reward_model(c.model, asked, **how)
        elif c.subset:
            raise hookline.ExperimentError("--subset splits a reward model's accuracy", "name the run with --model")
        elif c.split != "all":
            raise hookline.ExperimentError("--split says which prompts a reward model is asked about", "name the run with --model")
        elif c.output:
            raise hookline.ExperimentError("--output names an output of a reward model", "name the run with --model")
        rated = _rated(events)
        out.value(
            plain(
                {
                    "judgements": asdict(judged),
                    "models": asdict(rated) if rated else None,
                    "reward_model": asdict(model) if model else None,
                }
            )
        )
        out.text(f"{c.source}: {judged.events} events of {len(judged.annotators)} annotators\n")
        _people(judged).show(out)
        for one in judged.annotators:
            out.text(f"{one.name}: {one.verdict}; {one.why}")
        _agreement(judged, out)
        if rated:
            _models(rated, out)
        _questions("answers contradict each other; let somebody decide", judged.adjudicate, out)
        if model:
            _model(model, out)
        _questions("ask next", model.ask if model else judged.ask, out)
        for note in [*judged.notes, *(model.notes if model else ())]:
            out.text(f"note: {note}")
        return 0


def _people(judged: Any) -> Table:
    shares = ("agreement", "gold", "repeats", "first", "position", "reliability")
    columns = [Column("annotator"), Column("answers"), Column("skips")]
    for name in shares:
        columns += [Column(name, form=SHARE), Column(f"{name}_interval", "95 %", form=SHARE, ends=True)]
    columns += [
        Column("dawid_skene", "Dawid–Skene", form=SHARE),
        Column("crowd_bt", "CrowdBT", form=SHARE),
        Column("seconds"),
    ]
    table = Table("annotators", (*columns, Column("verdict")))
    for one in judged.annotators:
        found = {name: getattr(one, name) for name in shares}
        row = {name: value.value for name, value in found.items()}
        row |= {f"{name}_interval": (value.low, value.high) for name, value in found.items()}
        plain_ones = ("answers", "skips", "dawid_skene", "crowd_bt", "seconds", "verdict")
        table.add(annotator=one.name, **row, **{name: getattr(one, name) for name in plain_ones})
    return table


def _agreement(judged: Any, out: Out) -> None:
    out.text("\nagreement beyond chance (Krippendorff's α; 1: all agree, 0: chance)")
    table = Table(
        "agreement",
        (
            Column("kind"),
            Column("alpha", "α", form=".3f"),
            Column("ends", "95 %", form=".3f", ends=True),
            Column("level"),
            Column("questions"),
        ),
    )
    for kind, one in judged.agreement.items():
        table.add(kind=kind, alpha=one.value, ends=(one.low, one.high), level=one.level, questions=one.units)
    table.show(out)
    best = judged.ceiling
    if best.accuracy == best.accuracy:
        out.text(
            f"two annotators agree in {best.agreement:.1%}, so the best reward model is right in about {best.accuracy:.1%} "
            f"of single answers, with a loss of {best.nll:.3f}"
        )


def _rated(events: Sequence[Any]) -> Any:
    """Ratings of the models that wrote what was judged; None where nothing compares two of them."""
    try:
        return hookline.model_ratings(events)
    except DataError:
        return None


def _models(rated: Any, out: Out) -> None:
    out.text("\nmodels, by what was preferred (Bradley–Terry; 1000 Elo points are in the middle)")
    ends: dict[str, Any] = {"form": ".0f", "ends": True}
    table = Table("models", (Column("model"), Column("elo", "Elo", form=".0f"), Column("ends", "95 %", **ends)))
    for name in rated.names:
        one = rated.elo[name]
        table.add(model=name, elo=one.value, ends=(one.low, one.high))
    table.show(out)
    if len(rated.names) == 2:
        best, other = rated.names
        strength = rated.strength[best]  # the other's is its negative
        rate, low, high = (1 / (1 + math.exp(-2 * x)) for x in (strength.value, strength.low, strength.high))
        out.text(f"{best} is preferred to {other} in {rate:.0%} [{low:.0%}, {high:.0%}] of what is decided")
    if rated.note:
        out.text(f"note: {rated.note}")


def _questions(title: str, questions: Sequence[Any], out: Out) -> None:
    if not questions:
        return
    out.text(f"\n{title}")
    table = Table(
        "questions",
        (Column("item"), Column("candidates"), Column("answers"), Column("sure", form=SHARE), Column("prompt")),
    )
    for one in questions:
        table.add(
            item=one.item[:12], candidates=", ".join(map(str, one.places)), answers=one.answers, sure=one.probability,
            prompt=one.prompt.replace("\n", " ")[:48],
        )  # fmt: skip
    table.show(out)


def _model(model: Any, out: Out) -> None:
    cal, thumbs = model.calibration, model.thumbs
    if thumbs.up and thumbs.down:
        out.text(
            f"\nreward model on {thumbs.up} thumbs up and {thumbs.down} down: AUC {_shown(thumbs.auc)}; balanced accuracy "
            f"{thumbs.balanced:.3f}, where a constant answer has 0.500 and is right in {thumbs.majority:.3f} of all"
        )
    elif thumbs.up or thumbs.down:
        out.text(f"\nall {thumbs.up + thumbs.down} thumbs are {'up' if thumbs.up else 'down'}, so they do not tell rewards apart")
    if not cal.pairs:
        return
    out.text(
        f"\nreward model: right in {_shown(model.accuracy)} of {cal.pairs} decided pairs; ceiling about {model.ceiling.accuracy:.3f}"
    )
    out.text(
        f"calibration: slope {cal.slope:.2f} (1 is calibrated, below 1 overconfident), Brier {cal.brier:.3f}, loss {cal.nll:.3f}, "
        f"ECE {_shown(cal.ece)}" + (f"; {cal.note}" if cal.note else "")
    )
    bins = Table("calibration", (Column("pairs"), Column("predicted", form=".3f"), Column("won", form=".3f")))
    for row in cal.table:
        bins.add(**row)
    bins.show(out)
    out.text(f"prefers the longer answer in {_shown(model.longer)}; annotators in {_shown(model.annotators_longer)}")
    table = Table(
        "parts",
        (
            Column("by"),
            Column("part"),
            Column("pairs"),
            Column("accuracy", form=".3f"),
            Column("ends", "95 %", form=".3f", ends=True),
        ),
    )
    parts: Mapping[str, Mapping[str, tuple[int, Estimate]]] = {
        "length": model.by_length, "position": model.by_position, "annotator": model.by_annotator, "subset": model.by_subset,
    }  # fmt: skip
    for by, found in parts.items():
        for part, (pairs, one) in found.items():
            table.add(by=by, part=part, pairs=pairs, accuracy=one.value, ends=(one.low, one.high))
    table.show(out)


def _shown(one: Estimate) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"
