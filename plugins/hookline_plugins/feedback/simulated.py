"""Simulated annotators: they judge answers by a known gold reward with noise, as people might, in any kind of judgement.

Everything follows from v = gold / temperature, the reward in nats, and the likelihoods that the update `latent-reward` fits:
    ranking      Gumbel noise is added to each v, and the answers are sorted by the sum: a Plackett–Luce ranking (Luce 1959;
                 Plackett 1975), in which every pair follows Bradley–Terry, P(a beats b) = σ(v_a − v_b)
    comparison   two answers in random order; with `ties` by Davidson (1970), with `unnoticed` by Rao and Kupper (1967)
    rating       the number of thresholds that v + leniency + logistic noise exceeds
    thumb        up with probability σ(v + leniency − thumb_cut)
    correction   one answer is replaced by the best one
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import NormalDist
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

import hookline
from hookline import (
    Comparison,
    Component,
    Context,
    Correction,
    ExperimentError,
    Judgement,
    Metric,
    Ranking,
    Rating,
    Scored,
    Thumb,
    hookimpl,
)
from hookline_plugins.feedback.waiting import different

Share = Annotated[float, Field(ge=0, le=1)]
Kind = Literal["ranking", "comparison", "rating", "thumb", "correction"]


class SimulatedAnnotator(Component):
    """Judges the answers to each prompt by the reward that the phase names."""

    needs = frozenset({"groups"})
    metrics = (Metric("agreement", "share of pairs, without ties, that the annotator orders as the gold reward does"),)

    class Config(hookline.Config):
        temperature: float = Field(0.1, gt=0)
        """Noise in units of reward. Small is a careful annotator, large answers almost at random."""
        answers: int = Field(0, ge=0)
        """Number of different answers to a prompt that are ranked at once: 2 is a comparison; 0 ranks all of them."""
        kinds: tuple[Kind, ...] = ("ranking",)
        """The kinds of judgements; of several, each judgement is of one at random."""
        judgements: int = Field(1, ge=1)
        """Judgements of the answers to one prompt in a step."""
        annotators: int = Field(1, ge=1)
        """How many annotators there are, `simulated-0` and so on; each judgement is by one at random."""
        leniency: float = Field(0.0, ge=0)
        """Standard deviation over annotators of what each adds to v in ratings and thumbs, in nats."""
        careless: Share | tuple[Share, ...] = 0.0
        """Share of comparisons that are answered the wrong way round. Of several, annotators have them in turn."""
        position: float = 0.0
        """What being shown first adds to v, in nats."""
        ties: float = Field(0.0, ge=0)
        """ν of Davidson: the weight of a tie, in comparisons and in rankings, there for two candidates at most."""
        unnoticed: float = Field(0.0, ge=0)
        """η of Rao and Kupper: differences below this, after noise, are a tie. In comparisons only."""
        both_bad: float | None = None
        """The v of choosing neither of two answers; None: one is always chosen."""
        ranked: int = Field(0, ge=0)
        """How many of the best answers of a ranking get a place; 0: all."""
        levels: int = Field(5, ge=2)
        """How many marks the scale of a rating has, from 1."""
        scale_width: float = Field(4.0, gt=0)
        """The distance between the lowest and the highest threshold of the scale, in nats."""
        scale_middle: float = 0.0
        """The v in the middle of the scale. Low is a scale on which most answers have the highest mark, so that it does not tell the
        best from the good."""
        axes: tuple[str, ...] = ()
        """Names of rewards of the phase, each the gold reward of one axis of ratings. Without it, there is one, `overall`."""
        tastes: tuple[str, ...] = ()
        """Names of rewards of the phase, each the gold reward of one taste; annotators have them in turn. Without it, all have one."""
        skipped: float = Field(0.0, ge=0, lt=1)
        """Share of axes that a rating does not mark; one is always marked."""
        thumb_cut: float = 0.0
        """The v of an answer that is liked half the time."""

        @model_validator(mode="after")
        def _one_kind_of_tie(self) -> Self:
            if self.ties and self.unnoticed:
                raise ValueError("has ties by ν (`ties`) and by η (`unnoticed`); give one of them")
            if not self.kinds:
                raise ValueError("gives no kind of judgement; name one in `kinds`")
            if self.careless == ():
                raise ValueError("has no share in `careless`; name one, or leave it out")
            return self

    @hookimpl
    def hookline_judge(self, ctx: Context, scored: Scored) -> Sequence[Judgement]:
        c = self.config
        unknown = next((name for name in (*c.axes, *c.tastes) if name not in scored.terms), None)
        if unknown:
            raise ExperimentError(
                f"'{self.instance}' has '{unknown}' as an axis or a taste, which is not a reward of the phase",
                f"name its rewards: {', '.join(scored.terms)}",
            )
        said: list[Judgement] = []
        right = pairs = 0
        for answers in different(scored):
            rows = torch.tensor(answers)
            for number in range(c.judgements):
                ids = (int(scored.sample_B[rows[0]]), *((number,) if number else ()))
                judgement = self._judge(ctx, scored, rows, ids)
                if judgement is not None:
                    said.append(judgement)
                    agree, of = _agreement(judgement)
                    right, pairs = right + agree, pairs + of
        if pairs:
            ctx.log("agreement", right / pairs, pairs)
        return said

    def _judge(self, ctx: Context, scored: Scored, rows: Tensor, ids: tuple[int, ...]) -> Judgement | None:
        """One judgement of different answers to a prompt; None if there are too few of them."""
        c, draw = self.config, ctx.rng("judge", *ids)
        choose = ctx.rng("choose", *ids)
        kind = c.kinds[_below(len(c.kinds), choose)]
        who = _below(c.annotators, choose)
        gold_B = scored.terms[c.tastes[who % len(c.tastes)]] if c.tastes else scored.reward_B
        v_B = gold_B.double() / c.temperature
        if kind in ("ranking", "comparison", "correction"):
            most = 2 if kind == "comparison" else c.answers or len(rows)
            shown = rows[torch.randperm(len(rows), generator=choose)] if kind != "ranking" else rows
            rows = shown[:most]
            if len(rows) < 2:
                return None
        else:
            rows = rows[_below(len(rows), choose)][None]
        answer: Any
        match kind:
            case "ranking":
                answer = self._ranking(v_B[rows], draw)
            case "comparison":
                answer = self._comparison(v_B[rows], self._careless(who), draw)
            case "rating":
                answer = self._rating(scored, gold_B, int(rows[0]), who, draw)
            case "thumb":
                level = float(v_B[rows[0]]) + self._leniency(who) - c.thumb_cut
                answer = Thumb(up=_uniform(draw) < 1 / (1 + math.exp(-level)))
            case _:
                best = int(v_B[rows].argmax())
                if best == 0:
                    return None
                answer = Correction(of=0, text=scored.response_text(int(rows[best])))
        return Judgement(
            rows=tuple(rows.tolist()),
            answer=answer,
            gold=tuple(float(gold_B[row]) for row in rows),
            annotator="simulated" if c.annotators == 1 else f"simulated-{who}",
        )

    def _ranking(self, v_K: Tensor, draw: Generator) -> Ranking | Comparison:
        c = self.config
        if c.ties:
            order = _luce(v_K, c.ties, draw)
        else:
            u = torch.rand(len(v_K), generator=draw, dtype=torch.float64)
            noisy = v_K - torch.log(-torch.log(u))
            order = [[i] for i in noisy.argsort(descending=True, stable=True).tolist()]
        if len(v_K) == 2:
            return Comparison(better="tie" if len(order) == 1 else order[0][0])
        places = c.ranked or len(order)
        return Ranking(order=tuple(tuple(group) for group in order[:places]))

    def _careless(self, who: int) -> float:
        given: float | tuple[float, ...] = self.config.careless
        return given[who % len(given)] if isinstance(given, tuple) else given

    def _comparison(self, v_2: Tensor, careless: float, draw: Generator) -> Comparison:
        """The two candidates are in the order in which they are shown."""
        c = self.config
        one, two = float(v_2[0]) + c.position, float(v_2[1])
        if c.both_bad is not None and _uniform(draw) < 1 / (
            1 + math.exp(one - c.both_bad) + math.exp(two - c.both_bad)
        ):
            return Comparison(better="both-bad")
        u, d = _uniform(draw), one - two
        tie = c.ties / (c.ties + math.exp(d / 2) + math.exp(-d / 2)) if c.ties else 0.0
        if u < tie:
            return Comparison(better="tie")
        noisy = d + _logistic(draw)
        if abs(noisy) < c.unnoticed:
            return Comparison(better="tie")
        wrong = bool(careless) and _uniform(draw) < careless
        return Comparison(better=int((noisy < 0) is not wrong))

    def _rating(self, scored: Scored, gold_B: Tensor, row: int, who: int, draw: Generator) -> Rating:
        c = self.config
        axes = c.axes or ("overall",)
        always = _below(len(axes), draw)
        marks = {}
        for i, axis in enumerate(axes):
            gold = float(scored.terms[axis][row] if c.axes else gold_B[row])
            noisy = gold / c.temperature + self._leniency(who) + _logistic(draw)
            if i == always or _uniform(draw) >= c.skipped:
                marks[axis] = 1.0 + sum(noisy - c.scale_middle > threshold for threshold in thresholds(c.levels, c.scale_width))
        return Rating(marks=marks, high=float(c.levels))

    def _leniency(self, who: int) -> float:
        """What an annotator adds, the same at every step."""
        spread: float = self.config.leniency
        return spread * NormalDist().inv_cdf((who + 0.5) / self.config.annotators)


def thresholds(levels: int, width: float) -> list[float]:
    """The thresholds of a scale, evenly spaced around 0."""
    if levels == 2:
        return [0.0]
    return [width * (k / (levels - 2) - 0.5) for k in range(levels - 1)]


def _luce(v_K: Tensor, nu: float, draw: Generator) -> list[list[int]]:
    """A ranking in which two can tie: sets are picked with weight e^v, or ν e^((v_a + v_b)/2) (Firth, Kosmidis, Turner 2019)."""
    left, order = list(range(len(v_K))), []
    while left:
        sets = [[i] for i in left] + [list(pair) for pair in combinations(left, 2)]
        weights = torch.stack([v_K[s].mean() + (math.log(nu) if len(s) == 2 else 0.0) for s in sets]).softmax(0)
        order.append(sets[int(torch.multinomial(weights, 1, generator=draw))])
        left = [i for i in left if i not in order[-1]]
    return order


def _agreement(judgement: Judgement) -> tuple[int, int]:
    """(pairs in the order of the gold reward, pairs) of what a judgement puts in order."""
    said, gold = judgement.answer, judgement.gold or ()
    order: Sequence[Sequence[int]] = ()
    if isinstance(said, Ranking):
        order = said.order
    elif isinstance(said, Comparison) and said.better in (0, 1):
        order = ((int(said.better),), (1 - int(said.better),))
    decided = [(gold[a], gold[b]) for above, below in combinations(order, 2) for a in above for b in below]
    untied = [a > b for a, b in decided if a != b]
    return sum(untied), len(untied)


def _uniform(draw: Generator) -> float:
    return float(torch.rand((), generator=draw, dtype=torch.float64))


def _below(n: int, draw: Generator) -> int:
    return int(torch.randint(n, (), generator=draw))


def _logistic(draw: Generator) -> float:
    u = min(max(_uniform(draw), 1e-12), 1 - 1e-12)
    return math.log(u / (1 - u))
