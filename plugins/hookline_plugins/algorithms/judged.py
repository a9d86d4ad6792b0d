"""Likelihoods of judgements in training: which rows a judgement is about, and the parameters that a likelihood has of its own.

A micro-batch holds whole groups, and a group is one judgement (rollout `judgements`); `place_B` is a row's place in its
group, and `said_B` is 1 where the judgement says something.
Each class reads the rows of its kinds, given the rewards of all rows [B], and returns the first row of each judgement and
its negative log-likelihood, both [N].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import expm1, log
from typing import ClassVar, Literal, get_args

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import logsigmoid

from hookline import Batch, Context, UpdateConfig
from hookline_plugins import likelihoods as lk
from hookline_plugins.outputs import mark_column

__all__ = ["ANSWER_KINDS", "Annotators", "Comparisons", "Options", "Rankings", "Ratings", "Thumbs", "classified"]

Kind = Literal["comparison", "ranking", "rating", "thumb", "correction"]
ANSWER_KINDS: tuple[Kind, ...] = get_args(Kind)
"""The kinds of judgements that say something about the reward of an answer: all but the last of `likelihoods.KINDS`."""
STRENGTHS = {"weight": (1.0, 2.0, 3.0), "margin": (0.0, 0.5, 1.0), "soft": (0.7, 0.85, 0.95)}
Answered = tuple[Tensor, Tensor]
"""The first row of each judgement, int64 [N], and a loss of each, [N]."""


class Options(UpdateConfig):
    """How each kind of judgement is modelled."""

    usual_lr: ClassVar[float] = 1e-5
    synonyms: ClassVar[Mapping[str, str]] = {"center_rewards_coefficient": "centre", "label_smoothing": "flips"}
    comparison: Literal["bradley-terry", "davidson", "rao-kupper"] = "bradley-terry"
    """How comparisons are answered, see above. Losses of models with ties and without are not comparable."""
    ties: Literal["leave-out", "half"] = "leave-out"
    """Ties under bradley-terry: `half` a win for each, which makes rewards smaller, or left out, which wastes them."""
    both_bad: Literal["leave-out", "outside"] = "leave-out"
    """The answer that both are bad: left out, or `outside`, the option of neither, which has reward 0; good answers are above it."""
    strength: Literal["ignore", "weight", "margin", "soft"] = "ignore"
    """How much better, under bradley-terry: a `weight` of the comparison, a `margin` that the difference should have, or the label
    itself as a probability (`soft`)."""
    strengths: tuple[float, float, float] | None = None
    """What strengths 1, 2 and 3 are as weights, margins or probabilities. Default: (1, 2, 3), (0, .5, 1) or (.7, .85, .95)."""
    noise: Literal["none", "conservative", "robust", "learned"] = "none"
    """Wrong answers, of which a share `flips` is assumed: `conservative` smooths labels, `robust` corrects the loss, which then has no
    lower bound. `learned`: each annotator has a probability of meaning what it says (CrowdBT), with the prior Beta(10, 1); below ½ it
    says the opposite. It begins at .9 and needs more steps than the order of rewards does."""
    flips: float = Field(0.0, ge=0, lt=0.5)
    """ε, the assumed share of wrong answers, for `conservative` and `robust`."""
    position: bool = False
    """Learn how much an answer gains by being shown first. It can be told from quality only if the order was random."""
    ranking: Literal["plackett-luce", "davidson-luce", "pairs"] = "plackett-luce"
    """How rankings are answered, see above."""
    most_tied: int = Field(2, ge=2)
    """The largest tie of a ranking that davidson-luce has a probability for."""
    rating: Literal["ordinal", "coral", "corn", "normal", "beta", "binary"] = "ordinal"
    """How marks are given, see above."""
    levels: int = Field(5, ge=2)
    """How many marks a scale has, for `ordinal`, `coral` and `corn`."""
    outputs: Literal["attributes", "ensemble", "tastes", "classes"] = "attributes"
    """What several outputs of the head `reward` are. `attributes`: each axis of ratings is about the output of its name, and
    everything else about the output `overall`. `ensemble`: each learns from its own resample of the judgements. `tastes`: each
    annotator has one of these rewards in mind, and with which probability is learned. `classes`: the marks of a scale, named by their
    numbers; a rating is a class, and the reward of an answer is its expected class."""
    annotator: Literal["same", "leniency", "leniency-and-spread"] = "leniency"
    """What each annotator has of its own in ratings and thumbs."""
    annotators: int = Field(256, ge=1)
    """How many annotators have values of their own, in the order in which they come in the data; later ones share the last."""
    balance: bool = False
    """Give thumbs up and thumbs down the same total weight; rewards then no longer predict how frequent each is."""
    weights: Mapping[Kind, float] = Field(default_factory=dict)
    """The weight of a kind's losses, default 1. With 1, the sum is the likelihood of everything that was said."""
    own_lr: float = Field(0.01, gt=0, le=1)
    """Peak learning rate of what is learned beside the network: thresholds, ties, annotators."""
    centre: float = Field(0.01, ge=0)
    """Weight of mean r², which keeps rewards near 0. Large flattens them."""

    @model_validator(mode="after")
    def _options_are_used(self) -> Options:
        if (self.flips > 0) != (self.noise in ("conservative", "robust")):
            raise ValueError(f"flips is {self.flips:g} and noise is {self.noise}; give both, e.g. robust and 0.1")
        plain = self.comparison == "bradley-terry" and self.both_bad == "leave-out"
        unread = {"strength": self.strength != "ignore", "ties": self.ties == "half", "noise": self.flips > 0}
        used = next((name for name, given in unread.items() if given and not plain), None)
        if used:
            raise ValueError(
                f"{used} is read under comparison: bradley-terry and both_bad: leave-out; leave it out, or choose these"
            )
        if self.strength == "weight" and self.noise == "learned":
            raise ValueError("noise: learned mixes probabilities, which strength: weight does not leave as they are; choose margin or soft")
        if self.strengths and self.strength == "ignore":
            raise ValueError("strengths are read where strength is weight, margin or soft; name one of them")
        if self.strengths and self.strength == "soft" and not all(0 <= p <= 1 for p in self.strengths):
            raise ValueError("strengths are probabilities where strength is soft, from 0 to 1")
        return self


def of_kind(batch: Batch, kind: Kind) -> Tensor:
    """The rows of judgements of a kind that say something under the chosen likelihoods, bool [B]."""
    return (batch.extra["kind_B"] == lk.KINDS.index(kind)) & (batch.extra["said_B"] > 0)


def pairs_of(batch: Batch, *kinds: Kind) -> tuple[Tensor, Tensor]:
    """The first and the second row of each judgement of these kinds, int64 [N] each."""
    of_B, place_B = torch.stack([of_kind(batch, kind) for kind in kinds]).any(0), batch.extra["place_B"]
    a, b = ((of_B & (place_B == place)).nonzero()[:, 0] for place in (0, 1))
    return a[batch.group_B[a].argsort()], b[batch.group_B[b].argsort()]


class Annotators:
    """What is particular to each annotator: how generous and how sharp, how reliable, which taste. [A, …], 0 is like the others."""

    def __init__(self, ctx: Context, c: Options, tastes: int = 0) -> None:
        def each(wanted: bool) -> Tensor | None:
            return torch.zeros(c.annotators) if wanted else None

        start = {
            "leniency": each(c.annotator != "same"),
            "spread": each(c.annotator == "leniency-and-spread"),
            "taste": torch.zeros(c.annotators, tastes) if tastes else None,
            "reliability": torch.full((c.annotators,), log(9.0)) if c.noise == "learned" else None,  # q = .9
        }
        self.values = {name: ctx.parameter(name, x, lr=c.own_lr) for name, x in start.items() if x is not None}

    def of(self, name: str, batch: Batch, rows: Tensor) -> Tensor:
        """The values of the annotators of some rows, [N]. Those beyond the last share its value."""
        values = self.values[name]
        return values[batch.extra["annotator_B"][rows].clamp(max=len(values) - 1)]

    def level(self, batch: Batch, rows: Tensor, reward_N: Tensor) -> Tensor:
        """The reward of an answer as its annotator sees it, [N]."""
        if "spread" in self.values:
            reward_N = reward_N * self.of("spread", batch, rows).exp()
        return reward_N + self.of("leniency", batch, rows) if "leniency" in self.values else reward_N

    def prior(self, batch: Batch) -> Tensor:
        """What the prior of reliabilities adds to the loss of each comparison and correction, on its first row, 0 elsewhere, [B].

        Each brings its part, so that all that an annotator gave in the data bring the prior once.
        """
        a, _ = pairs_of(batch, "comparison", "correction")
        part_N = lk.honest(self.of("reliability", batch, a)) / batch.extra["answers_B"][a]
        return part_N.new_zeros(len(batch)).index_add(0, a, part_N)


class Comparisons:
    """Comparisons, and corrections, which are preferred to what they correct."""

    def __init__(self, ctx: Context, c: Options, annotators: Annotators) -> None:
        self.config, self.annotators = c, annotators
        start = {"davidson": log(0.5), "rao-kupper": log(0.5)}.get(c.comparison)
        self.ties = None if start is None else ctx.parameter("ties", torch.tensor(start), lr=c.own_lr)
        self.outside = c.both_bad == "outside"
        self.position = ctx.parameter("position", torch.zeros(()), lr=c.own_lr) if c.position else None

    def __call__(self, batch: Batch, reward_B: Tensor) -> Answered:
        a, b = pairs_of(batch, "comparison", "correction")
        corrected_N = batch.extra["kind_B"][a] == lk.KINDS.index("correction")
        outcome_N = torch.where(corrected_N, lk.SECOND, batch.extra["outcome_B"][a])
        one_N, two_N = reward_B[a], reward_B[b]
        if self.position is not None:
            first_B = batch.extra["first_B"]
            one_N, two_N = one_N + self.position * first_B[a], two_N + self.position * first_B[b]
        nll_N = self._nll(one_N, two_N, outcome_N, batch.extra["strength_B"][a].long())
        if "reliability" in self.annotators.values:
            opposite_N = self._nll(
                one_N, two_N, _OPPOSITE.to(outcome_N.device)[outcome_N], batch.extra["strength_B"][a].long()
            )
            nll_N = lk.reliable(nll_N, opposite_N, self.annotators.of("reliability", batch, a))
        return a, nll_N

    def _nll(self, one_N: Tensor, two_N: Tensor, outcome_N: Tensor, strength_N: Tensor) -> Tensor:
        d_N = one_N - two_N
        if self.ties is None and not self.outside:
            return self._bradley_terry(d_N, outcome_N, strength_N)
        if self.ties is None:
            said_NK = torch.stack([logsigmoid(d_N), logsigmoid(-d_N)], 1)
        else:
            said_NK = (lk.davidson if self.config.comparison == "davidson" else lk.rao_kupper)(d_N, self.ties)
        if self.outside:
            said_NK = lk.with_outside_option(said_NK, one_N, two_N, torch.zeros_like(d_N))
        return -said_NK.gather(1, outcome_N[:, None])[:, 0]

    def _bradley_terry(self, d_N: Tensor, outcome_N: Tensor, strength_N: Tensor) -> Tensor:
        c = self.config
        win_N = torch.ones_like(d_N)  # how sure it is that the better one is better
        margin_N, weight_N = torch.zeros_like(d_N), torch.ones_like(d_N)
        if c.strength != "ignore":
            values = torch.tensor(
                [{"weight": 1.0, "margin": 0.0, "soft": 1.0}[c.strength], *(c.strengths or STRENGTHS[c.strength])],
                device=d_N.device,
            )
            value_N = values[strength_N]
            if c.strength == "soft":
                win_N = value_N
            elif c.strength == "margin":
                margin_N = value_N
            else:
                weight_N = value_N
        if c.noise == "conservative":
            win_N = (1 - c.flips) * win_N + c.flips * (1 - win_N)
        elif c.noise == "robust":
            win_N = lk.true_share(win_N, c.flips)
        p_N = torch.where(outcome_N == lk.FIRST, win_N, torch.where(outcome_N == lk.SECOND, 1 - win_N, 0.5))
        return weight_N * lk.bradley_terry(d_N, p_N, margin_N)


_OPPOSITE = torch.tensor([lk.SECOND, lk.FIRST, lk.TIE, lk.NEITHER])


class Rankings:
    """Rankings, with ties and with candidates that have no place."""

    def __init__(self, ctx: Context, c: Options) -> None:
        self.config = c
        luce = c.ranking == "davidson-luce"
        self.ties = (
            ctx.parameter("ranking-ties", torch.full((c.most_tied - 1,), log(0.5)), lr=c.own_lr) if luce else None
        )

    def __call__(self, batch: Batch, reward_B: Tensor) -> Answered:
        rows = of_kind(batch, "ranking").nonzero()[:, 0]
        groups, which = torch.unique(batch.group_B[rows], return_inverse=True)
        place = batch.extra["place_B"][rows]
        shape = (len(groups), int(place.max()) + 1 if len(rows) else 0)
        score_NK = reward_B.new_zeros(shape).index_put((which, place), reward_B[rows])
        level_NK = reward_B.new_full(shape, torch.nan).index_put(
            (which, place), batch.extra["level_B"][rows].to(reward_B.dtype)
        )
        first = torch.zeros_like(groups).index_put((which[place == 0],), rows[place == 0])
        if self.ties is not None:
            return first, lk.davidson_luce(score_NK, level_NK, self.ties)
        if self.config.ranking == "plackett-luce":
            return first, lk.plackett_luce(score_NK, level_NK)
        better_NKK = level_NK[:, :, None] > level_NK[:, None, :]
        nll_NKK = lk.bradley_terry(score_NK[:, :, None] - score_NK[:, None, :])
        ranked_N = (~level_NK.isnan()).sum(1).clamp(min=2)
        return first, torch.where(better_NKK, nll_NKK, 0.0).sum((1, 2)) * 2 / ranked_N


class Ratings:
    """Marks on a scale, of one axis or several; each axis has its own thresholds.

    axes: their names, in whose order parameters have a row for each.
    """

    def __init__(self, ctx: Context, c: Options, annotators: Annotators, axes: Sequence[str]) -> None:
        self.config, self.annotators, self.axes = c, annotators, axes

        def every(start: Tensor) -> Tensor:
            return start.expand(len(axes), *start.shape)

        gap = torch.full((c.levels - 2,), log(expm1(4.0 / max(1, c.levels - 2))))  # thresholds from −2 to 2
        start = {
            "ordinal": {"threshold": torch.tensor(-2.0), "gaps": gap},
            "coral": {"cuts": torch.linspace(2, -2, c.levels - 1)},
            "corn": {"cuts": torch.linspace(2, -2, c.levels - 1)},
            "normal": {"mark": torch.tensor([0.5, log(0.2), log(0.2)])},
            "beta": {"mark": torch.tensor([0.0, 0.0, log(5.0)])},
            "binary": {"mark": torch.tensor([0.0, 0.0, 0.0])},
        }[c.rating]
        own = start if axes else {}
        self.values = {name: ctx.parameter(f"rating-{name}", every(x), lr=c.own_lr) for name, x in own.items()}

    def __call__(self, batch: Batch, reward_B: Callable[[str], Tensor]) -> Answered:
        """reward_B: the reward that an axis is about, [B]. A missing mark adds nothing."""
        rows = of_kind(batch, "rating").nonzero()[:, 0]
        total_N = torch.zeros(len(rows), device=rows.device)
        for number, axis in enumerate(self.axes):
            reward_N = self.annotators.level(batch, rows, reward_B(axis)[rows])
            share_N = batch.extra[mark_column(axis)][rows].to(reward_N.dtype)
            said_N = ~share_N.isnan()
            total_N = total_N.index_add(0, said_N.nonzero()[:, 0], self._nll(reward_N[said_N], share_N[said_N], number))
        return rows, total_N

    def thresholds(self, axis: int = 0) -> Tensor:
        """Of an ordinal scale, increasing, [levels − 1]."""
        return lk.increasing(self.values["threshold"][axis], self.values["gaps"][axis])

    def _nll(self, reward_N: Tensor, share_N: Tensor, axis: int) -> Tensor:
        c = self.config
        if c.rating in ("ordinal", "coral", "corn"):
            level_N = (share_N * (c.levels - 1)).round().long()
            if c.rating == "ordinal":
                return lk.cumulative_logit(reward_N, level_N, self.thresholds(axis))
            logits_NK = reward_N[:, None] + self.values["cuts"][axis]
            return (lk.cut_logits if c.rating == "coral" else lk.successive)(logits_NK, level_N)
        mean, slope, last = self.values["mark"][axis]
        if c.rating == "normal":
            return lk.normal(mean + slope.exp() * reward_N, share_N, last)
        if c.rating == "binary":
            return lk.soft_binary(mean + reward_N, share_N)
        return lk.beta(mean + reward_N, lk.squeezed(share_N, BETA_SQUEEZE), last)


BETA_SQUEEZE = 100
"""How far marks at the ends of a scale are moved inwards for a Beta distribution: to .005 and .995."""


def classified(batch: Batch, logits_BK: Tensor, axis: str) -> Answered:
    """Ratings as classes: the cross-entropy of the mark that was given. logits_BK: of each mark of the scale."""
    rows = of_kind(batch, "rating").nonzero()[:, 0]
    level_N = (batch.extra[mark_column(axis)][rows] * (logits_BK.shape[1] - 1)).round().long()
    return rows, -logits_BK[rows].log_softmax(1).gather(1, level_N[:, None])[:, 0]


class Thumbs:
    """Answers that were liked or not: how far the reward is above a cut."""

    def __init__(self, ctx: Context, c: Options, annotators: Annotators) -> None:
        self.config, self.annotators = c, annotators
        self.cut = ctx.parameter("thumb-cut", torch.zeros(()), lr=c.own_lr)

    def __call__(self, batch: Batch, reward_B: Tensor) -> Answered:
        rows = of_kind(batch, "thumb").nonzero()[:, 0]
        logit_N = self._logits(batch, rows, reward_B)
        nll_N = lk.soft_binary(logit_N, batch.extra["up_B"][rows].to(logit_N.dtype))
        return rows, nll_N * batch.extra["balance_B"][rows] if self.config.balance else nll_N

    def _logits(self, batch: Batch, rows: Tensor, reward_B: Tensor) -> Tensor:
        return self.annotators.level(batch, rows, reward_B[rows]) - self.cut

    def figures(self, batch: Batch, reward_B: Tensor) -> dict[str, tuple[str, Tensor]]:
        """Figure → the column over which it is a mean, and its values, [B]. Each balanced value has its class's weight in the data."""
        rows = of_kind(batch, "thumb").nonzero()[:, 0]
        up_N, weight_N = batch.extra["up_B"][rows] > 0.5, batch.extra["balance_B"][rows]
        logit_N = self._logits(batch, rows, reward_B)
        right_N = ((logit_N > 0) == up_N).to(reward_B.dtype)
        share_N = 0.5 / weight_N  # of the class in the data
        found = {
            "thumbs_up_right": ("thumb_up_B", right_N),
            "thumbs_down_right": ("thumb_down_B", right_N),
            "thumbs_balanced": ("thumb_B", right_N * weight_N),
            "thumbs_majority": ("thumb_B", torch.maximum(share_N, 1 - share_N).to(reward_B.dtype)),
            "thumbs_level": ("thumb_B", logit_N),
        }
        return {
            name: (column, torch.zeros_like(reward_B).index_put((rows,), value_N))
            for name, (column, value_N) in found.items()
        }
