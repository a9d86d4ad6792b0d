"""One reward behind judgements of every kind: each kind has a likelihood given the rewards, and their sum is maximised.

The reward is the head `reward` at the last token. The loss is the mean over judgements of −log P(what was said | rewards):
    comparison  bradley-terry  P(a ≻ b) = σ(r_a − r_b); a tie is left out, or counts as half a win for both
                davidson       and P(tie) ∝ ν √(e^r_a e^r_b)       (Davidson 1970)
                rao-kupper     differences below η are not noticed  (Rao and Kupper 1967)
    ranking     plackett-luce  the best of those that are left is picked, again and again; candidates that tie are not compared
                davidson-luce  and ties have a probability          (Firth, Kosmidis and Turner 2019)
                pairs          every pair is a comparison; K candidates count as K − 1 comparisons
    rating      ordinal        P(level ≤ k) = σ(θ_k − r)           (McCullagh 1980)
                coral          P(level > k) = σ(r + b_k), each k for itself    (Cao et al. 2020)
                corn           the same, given that it is above k − 1          (Shi et al. 2023)
                normal, beta, binary   the mark as a number: normal noise, a Beta distribution, cross-entropy with the share of the scale
    thumb       P(up) = σ(r − c)
    correction  is preferred to what it corrects, by Bradley–Terry or as `comparison` says

ν, η, θ, b and c are learned with the reward. Where a scale or thumbs are read, each annotator has a leniency that is added to
r, and may have a spread that multiplies it. All of this is relative: only differences of rewards have a meaning, except with
`both_bad: outside`, under which choosing neither has the reward 0, or where thumbs and scales say where zero is.

The head may have several outputs (`outputs`): attributes, of which a rating marks some, an ensemble, classes, or tastes. An annotator of
tastes has one of the rewards in mind: P(what was said) = Σ_m π_m P(what was said | reward m), with π of each annotator.

Healthy: the loss of each kind falls, `accuracy` rises to what annotators agree on, and `held_out` losses fall with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hookline import (
    Batch,
    Component,
    Context,
    DataError,
    ExperimentError,
    Loss,
    Metric,
    MicroBatch,
    Term,
    hookimpl,
)
from hookline_plugins import likelihoods as lk
from hookline_plugins.algorithms.judged import (
    ANSWER_KINDS,
    Annotators,
    Comparisons,
    Options,
    Rankings,
    Ratings,
    Thumbs,
    classified,
)
from hookline_plugins.maths import ordered, places
from hookline_plugins.outputs import OVERALL, are_numbers, axes_of, each_output, expected, mark_column


class LatentReward(Component[Options]):
    """Learn a reward from comparisons, rankings, ratings, thumbs and corrections together (rollout `judgements`)."""

    needs = frozenset({"judgements", "head:reward"})
    takes = Batch
    off_policy = True
    exempt: Mapping[str, str] = {
        "options": "laws are tried on plain comparisons, which say nothing about ties, strengths, thumbs and several outputs"
    }

    @property
    def metrics(self) -> Sequence[Metric]:
        c = self.config
        known = [
            Metric(f"{kind}_loss", f"mean over judgements of kind {kind} of −log P(what was said)", "nats")
            for kind in ANSWER_KINDS
        ]
        known.append(
            Metric(
                "accuracy",
                "share of decided comparisons that the model orders as the annotator did; equal rewards count ½",
                better="higher",
            )
        )
        known += [
            Metric("thumbs_up_right", "share of thumbs up that the model predicts", better="higher"),
            Metric("thumbs_down_right", "share of thumbs down that the model predicts", better="higher"),
            Metric(
                "thumbs_balanced",
                "the mean of both over the data: balanced accuracy, ½ for a constant answer",
                better="higher",
            ),
            Metric(
                "thumbs_majority", "share of the more frequent thumb in the data, which a constant answer gets right"
            ),
            Metric("thumbs_level", "mean over thumbs of the log-odds of up"),
            Metric(
                "thumbs_auc",
                "share of pairs of a thumb up and a thumb down in which the former's log-odds of up are higher, equal ones "
                "counting ½; only of held-out thumbs",
                better="higher",
            ),
        ]
        named = {
            "ties": ("ν of Davidson, or η of Rao and Kupper", c.comparison != "bradley-terry"),
            "disagreement": (
                "mean over answers of the standard deviation of the outputs",
                c.outputs in ("ensemble", "tastes"),
            ),
            "position": ("what being shown first adds to a reward", c.position),
            "leniency_spread": (
                "standard deviation of the leniency of the annotators of this step",
                c.annotator != "same",
            ),
            "reliability": (
                "mean over the annotators of this step of the probability that they mean what they say",
                c.noise == "learned",
            ),
            "reliability_lowest": (
                "the lowest of these; below ½ is an annotator who says the opposite",
                c.noise == "learned",
            ),
        }
        return (*known, *(Metric(name, what) for name, (what, given) in named.items() if given))

    def setup(self, ctx: Context) -> None:
        c = self.config
        head = ctx.role_named("policy").heads["reward"]
        self.names: tuple[str, ...] = tuple(getattr(head.inner, "names", ()))
        self.overall = self.names.index(OVERALL) if OVERALL in self.names else None
        self.axes = axes_of(ctx.given)
        if c.outputs != "attributes" and not self.names:
            raise ExperimentError(
                f"outputs is {c.outputs}, but the head 'reward' has one output",
                "name several: model: {head: {use: reward, outputs: [a, b]}}",
            )
        if c.outputs == "classes" and (len(self.names) != c.levels or not are_numbers(self.names)):
            raise ExperimentError(
                f"outputs is classes, and the head 'reward' has the outputs {', '.join(self.names)}",
                f"name the {c.levels} marks of the scale: outputs: [{', '.join(str(i + 1) for i in range(c.levels))}]",
            )
        self._refuse_axes()
        self.annotators = Annotators(ctx, c, len(self.names) if c.outputs == "tastes" else 0)
        self.comparisons = Comparisons(ctx, c, self.annotators)
        self.rankings = Rankings(ctx, c)
        self.ratings = Ratings(ctx, c, self.annotators, self.axes)
        self.thumbs = Thumbs(ctx, c, self.annotators)

    def _refuse_axes(self) -> None:
        """Axes of ratings that are not outputs of the head, and outputs that nothing is said about."""
        c, has = self.config, f"the head 'reward' has the outputs {', '.join(self.names)}"
        if c.outputs == "classes" and len(self.axes) != 1:
            raise ExperimentError(
                f"outputs: classes are the marks of one axis, and the rollout reads {len(self.axes)}", "name one in its axes"
            )
        if c.outputs != "attributes" or not self.names or not self.axes:
            return
        if self.axes == (OVERALL,) and OVERALL not in self.names:  # no axis was named; the first rating is refused
            return
        if unknown := next((axis for axis in self.axes if axis not in self.names), None):
            raise ExperimentError(
                f"ratings are read on the axis '{unknown}', and {has}",
                f"name the axes and the outputs alike: rollout: {{axes: [{', '.join(self.names)}]}}",
            )
        if idle := next((name for name in self.names if name not in (*self.axes, OVERALL)), None):
            raise ExperimentError(
                f"{has}, and no axis of ratings is called '{idle}'", f"read it: rollout: {{axes: [{', '.join(self.names)}]}}"
            )

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Batch) -> None:
        batch = self._columns(batch)
        batch = batch.rows(batch.extra["said_B"] > 0)
        if self.names and self.config.outputs == "ensemble":
            batch = batch.with_extra(resampled_B=lk.resampled(batch.extra["data_row_B"], len(self.names)))
        ctx.train(batch, self.loss, unit="group")
        for name, value in self._figures(batch).items():
            ctx.log(name, value)

    def held_out(self, ctx: Context, batch: Batch) -> Mapping[str, Term]:
        batch = self._columns(batch)
        found = dict(ctx.measure(batch, self.loss, unit="group"))
        if level := found.get("thumbs_level"):
            up_B, down_B = batch.extra["thumb_up_B"] > 0, batch.extra["thumb_down_B"] > 0
            down_N = torch.cat(ctx.gather(level.value[down_B])).sort().values
            below_2B = torch.stack([torch.searchsorted(down_N, level.value, right=right) for right in (False, True)])
            found["thumbs_auc"] = Term(below_2B.float().mean(0) / max(1, len(down_N)), up_B & (len(down_N) > 0))
        return found

    def _columns(self, batch: Batch) -> Batch:
        """Add which rows belong to judgements that say something, and a weight of 1 on the first row of each of these."""
        self._refuse(batch)
        unread = {mark_column(axis) for axis in self.axes} - batch.extra.keys()  # where no rating is among these rows
        batch = batch.with_extra(**{name: torch.full((len(batch),), math.nan) for name in unread})
        kind_B, outcome_B, says_B, place_B = (
            batch.extra["kind_B"],
            batch.extra["outcome_B"],
            self._says(batch),
            places(batch.group_B),
        )
        first_B = says_B & (place_B == 0)
        columns = {f"{kind}_B": (first_B & (kind_B == i)).float() for i, kind in enumerate(ANSWER_KINDS)}
        decided_B = (first_B & (outcome_B >= 0) & (outcome_B < 2)).float()
        columns["thumb_up_B"] = columns["thumb_B"] * (batch.extra["up_B"] > 0.5)
        columns["thumb_down_B"] = columns["thumb_B"] - columns["thumb_up_B"]
        return batch.with_extra(
            place_B=place_B, said_B=says_B.float(), judgement_B=first_B.float(), decided_B=decided_B, **columns
        )

    def _says(self, batch: Batch) -> Tensor:
        """Which rows belong to a judgement that says something about rewards, bool [B]."""
        c, extra = self.config, batch.extra
        kind_B, outcome_B = extra["kind_B"], extra["outcome_B"]
        left = torch.zeros(len(batch), dtype=torch.bool)
        if c.comparison == "bradley-terry" and c.ties == "leave-out":
            left |= outcome_B == 2
        if c.both_bad == "leave-out":
            left |= outcome_B == 3
        rating_B = kind_B == lk.KINDS.index("rating")
        if self.axes:
            marks_BA = torch.stack([extra[mark_column(axis)] for axis in self.axes], 1)
            left |= rating_B & marks_BA.isnan().all(1)
        same_BB = batch.group_B[:, None] == batch.group_B
        level_B = extra["level_B"]
        orders_B = (
            (same_BB & (level_B[:, None] != level_B)).any(1) if c.ranking != "davidson-luce" else same_BB.sum(1) > 1
        )
        left |= (kind_B == lk.KINDS.index("ranking")) & ~orders_B
        return ~left & (kind_B < len(ANSWER_KINDS))

    def _refuse(self, batch: Batch) -> None:
        """Judgements that the chosen likelihoods do not describe."""
        c, extra = self.config, batch.extra
        rating_B = extra["kind_B"] == lk.KINDS.index("rating")
        wrong_B = rating_B & (extra["levels_B"] != c.levels)
        if (c.rating in ("ordinal", "coral", "corn") or c.outputs == "classes") and bool(wrong_B.any()):
            row = int(wrong_B.nonzero()[0])
            has = int(extra["levels_B"][row])
            raise DataError(
                f"'{batch.prompt_text(row)[:40]}' has a rating on a scale of {has or 'any number of'} marks, and rating: {c.rating} "
                f"reads {c.levels}",
                f"set levels: {has}" if has else "choose rating: normal, beta or binary",
            )
        tied_BB = (batch.group_B[:, None] == batch.group_B) & (extra["level_B"][:, None] == extra["level_B"])
        most_B = torch.where(extra["kind_B"] == lk.KINDS.index("ranking"), tied_BB.sum(1), 0)
        if c.ranking == "davidson-luce" and bool((most_B > c.most_tied).any()):
            row = int(most_B.argmax())
            raise DataError(
                f"in a ranking, '{batch.response_text(row)[:40]}' ties with {int(most_B[row]) - 1} others, and davidson-luce has ties of "
                f"{c.most_tied} at most",
                f"set most_tied: {int(most_B[row])}, or choose ranking: plackett-luce, which compares no candidates that tie",
            )
        of_overall_B = (extra["kind_B"] < len(ANSWER_KINDS)) & ~(rating_B & (self.axes != (OVERALL,)))
        if self.names and c.outputs == "attributes" and self.overall is None and bool(of_overall_B.any()):
            kind = ANSWER_KINDS[int(extra["kind_B"][of_overall_B][0])]
            raise DataError(
                f"the head 'reward' has the outputs {', '.join(self.names)}, and a {kind} is about none of them",
                "name an output `overall`, or read ratings alone, on axes of these names: "
                f"rollout: {{kinds: [rating], axes: [{', '.join(self.names)}]}}",
            )
        read = axes_of(extra)
        if bool(rating_B.any()) and read != self.axes:
            raise DataError(
                f"these ratings are read on the axes {', '.join(read)}, and those of the phase on {', '.join(self.axes) or 'none'}",
                "name the same axes in the rollout of the evaluation",
            )

    def loss(self, mb: MicroBatch[Batch]) -> Loss:
        c, batch = self.config, mb.batch
        reward_BK = each_output(mb.stats(want=("reward",))["reward"], batch.mask_BT)
        nll_B, reward_B = self._nll(batch, reward_BK), self._joined(reward_BK.detach())
        if self.names and c.outputs in ("ensemble", "tastes"):
            mb.log("disagreement", mb.mean_over("said_B", reward_BK.detach().std(1)))
        weight = torch.tensor([c.weights.get(kind, 1.0) for kind in ANSWER_KINDS], device=nll_B.device)
        for kind in ANSWER_KINDS:
            if bool(mb[f"{kind}_B"].any()):
                mb.log(f"{kind}_loss", mb.mean_over(f"{kind}_B", nll_B.detach()))
        if bool(mb["decided_B"].any()):
            mb.log("accuracy", mb.mean_over("decided_B", self._right(batch, reward_B)))
        for name, (column, value_B) in self.thumbs.figures(batch, reward_B).items():
            if bool(mb[column].any()):
                mb.log(name, mb.mean_over(column, value_B.detach()))
        total: Loss = mb.mean_over(
            "judgement_B", weight[batch.extra["kind_B"].clamp(max=len(ANSWER_KINDS) - 1)] * nll_B
        )
        if "reliability" in self.annotators.values:
            total += mb.mean_over("judgement_B", self.annotators.prior(batch))
        total += mb.mean_over("said_B", reward_BK.square().mean(1)) * c.centre
        return total

    def _joined(self, reward_BK: Tensor) -> Tensor:
        """The one reward of several outputs, [B]."""
        if not self.names:
            return reward_BK[:, 0]
        if self.config.outputs == "attributes":
            return reward_BK[:, self.overall or 0]
        if self.config.outputs == "classes":
            return expected(reward_BK, self.names)
        return reward_BK.mean(1)

    def _about(self, axis: str, reward_BK: Tensor) -> Tensor:
        """The output that an axis of ratings is about, [B]."""
        return reward_BK[:, self.names.index(axis) if self.names else 0]

    def _nll(self, batch: Batch, reward_BK: Tensor) -> Tensor:
        """The loss of each judgement on its first row, 0 elsewhere, [B]."""
        outputs = self.config.outputs if self.names else "attributes"
        if outputs == "attributes":
            return self._sum(batch, self._joined(reward_BK), self.ratings(batch, lambda axis: self._about(axis, reward_BK)))
        if outputs == "classes":
            return self._sum(batch, self._joined(reward_BK), classified(batch, reward_BK, self.axes[0]))
        each_BK = torch.stack(
            [self._sum(batch, r_B, self.ratings(batch, lambda _: r_B)) for r_B in reward_BK.unbind(1)], 1  # noqa: B023
        )
        if outputs == "ensemble":
            resampled_BK = batch.extra.get("resampled_B")
            return each_BK.mean(1) if resampled_BK is None else (each_BK * resampled_BK).mean(1)
        share_BK = self.annotators.of("taste", batch, torch.arange(len(batch), device=each_BK.device)).log_softmax(1)
        return torch.where(batch.extra["judgement_B"] > 0, lk.mixed(each_BK, share_BK), 0.0)

    def _sum(self, batch: Batch, reward_B: Tensor, rated: tuple[Tensor, Tensor]) -> Tensor:
        """The losses of all kinds under one reward, each on its first row, [B]. rated: the ratings and their losses."""
        nll_B = torch.zeros_like(reward_B)
        for rows, nll_N in (
            self.comparisons(batch, reward_B),
            self.rankings(batch, reward_B),
            rated,
            self.thumbs(batch, reward_B),
        ):
            nll_B = nll_B.index_add(0, rows, nll_N)
        return nll_B

    @staticmethod
    def _right(batch: Batch, reward_B: Tensor) -> Tensor:
        """On the first row of each decided comparison, 1 where its rewards are in the annotator's order, ½ where they are equal."""
        a = (batch.extra["decided_B"] > 0).nonzero()[:, 0]
        same = (batch.group_B[a][:, None] == batch.group_B) & (torch.arange(len(batch), device=a.device) != a[:, None])
        b = same.int().argmax(1) if len(a) else a
        sign = 1.0 - 2.0 * batch.extra["outcome_B"][a]
        return torch.zeros_like(reward_B).index_put((a,), ordered((reward_B[a] - reward_B[b]) * sign))

    @torch.no_grad()
    def _figures(self, batch: Batch) -> dict[str, float]:
        """What was learned beside the rewards."""
        found: dict[str, float] = {}
        if self.comparisons.ties is not None:
            found["ties"] = float(self.comparisons.ties.exp())
        if self.comparisons.position is not None:
            found["position"] = float(self.comparisons.position)
        seen = torch.unique(batch.extra["annotator_B"].clamp(max=self.config.annotators - 1))
        values = self.annotators.values
        if "leniency" in values and len(seen) > 1:
            found["leniency_spread"] = float(values["leniency"][seen].std())
        if "reliability" in values and len(seen):
            q_A = values["reliability"][seen].sigmoid()
            found |= {"reliability": float(q_A.mean()), "reliability_lowest": float(q_A.min())}
        return found
