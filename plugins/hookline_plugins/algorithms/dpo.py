"""Direct preference optimisation (Rafailov et al. 2023): the policy is its own reward model, r = β log π/π_ref.

With h = β [log π/π_ref(chosen) − log π/π_ref(rejected)] and p = P(chosen ≻ rejected), 1 unless a column `preference_B` says
otherwise, the loss of a comparison is p f(h) + (1 − p) f(−h):
    sigmoid       f = −log σ(h)                 population optimum π ∝ π_ref exp(r/β), for answers of any policy; ln 2 at the start
    hinge         f = max(0, 1 − h)             SLiC (Zhao et al. 2023); 1 at the start
    ipo           f = (h/β − 1/(2β))²           IPO (Azar et al. 2023), β is its τ; optimum π ∝ π_ref exp(P(· ≻ μ)/β) for answers
                                                of μ; 1/(4β²) at the start, 25 at β = .1
    conservative  sigmoid with p ← (1−ε)p + ε(1−p)       a share ε of labels is wrong: h stops at log((1−ε)/ε) (Mitchell 2023)
    robust        sigmoid with p ← (p − ε)/(1 − 2ε)      rDPO (Chowdhury et al. 2024), unbiased under flips; unbounded below, so
                                                         do not choose a checkpoint by this loss
    sppo          (g_w − (p−½)/β)² + (g_l + (p−½)/β)²    SPPO (Wu et al. 2024), g = log π/π_ref of each answer, 1/β its η
    plackett-luce Σ_k −log softmax(β log π/π_ref)_k over row k and all rows below it, mean over k: whole rankings (Rafailov
                  et al. 2023, App. A.3); with two rows it equals `sigmoid`. Rows of equal reward are not compared.

On corrections, `length: mean` and `changed: γ` weigh the corrected tokens γ times (DDPO, Yu et al. 2024); with `sft`, the
corrected answer is cloned as well.

The same class serves offline data (`preferences`) and online data (`generate` with several samples per prompt and a reward; all
pairs of a group are compared). Healthy: `accuracy` and `margin` rise; `chosen_gain` stays near 0 or above. When `chosen_gain` and
`rejected_gain` fall together, probability moves to answers outside the comparisons, and `both_falling` rises: use more fresh
answers or a larger β, or stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import relu, softplus

from hookline import Context, ExperimentError, Loss, Metric, MicroBatch, PluginError, Scored, UpdateConfig
from hookline_plugins.algorithms.comparisons import Comparing, Length, answer_logprob, comparisons, mean
from hookline_plugins.likelihoods import picked, true_share

Kind = Literal["sigmoid", "hinge", "ipo", "conservative", "robust", "sppo", "plackett-luce"]


class DPO(Comparing):
    """Prefer the chosen answers, relative to the reference (the policy at the start of the phase)."""

    claims = frozenset({"kl"})
    metrics: Sequence[Metric] = (
        *Comparing.metrics,
        Metric("chosen_gain", "mean over comparisons of Σ_t log π/π_ref(chosen)", "nats per answer"),
        Metric("rejected_gain", "mean over comparisons of Σ_t log π/π_ref(rejected)", "nats per answer"),
        Metric("chosen_nll", "with `sft`: mean over comparisons of −log π(chosen) per token", "nats per token"),
        Metric(
            "both_falling",
            "share of comparisons whose answers are both less likely than under the reference",
            healthy=(0.0, 0.5),
        ),
    )

    class Config(UpdateConfig):
        synonyms: ClassVar[Mapping[str, str]] = {"label_smoothing": "flips", "loss_type": "loss", "rpo_alpha": "sft"}
        loss: Kind = "sigmoid"
        """The loss of a comparison, see above."""
        beta: float = Field(0.1, gt=0)
        """Price of each nat away from the reference. Small follows the labels further, large stays near the reference."""
        flips: float = Field(0.0, ge=0, lt=0.5)
        """ε, the assumed share of wrong labels, for `conservative` and `robust`."""
        length: Length = "sum"
        """An answer's log-prob: the `sum` over its tokens, as in the papers of all seven losses, or their `mean` (which TRL uses
        for ipo). The mean is a different objective, in which long answers have no larger weight."""

        changed: float = Field(1.0, gt=0)
        """γ, the weight of tokens that a correction changed, under `length: mean`. Large looks at the corrected parts."""
        sft: float = Field(0.0, ge=0)
        """Weight of −log π(chosen) per token, which keeps chosen answers likely (Pang et al. 2024). Large clones them."""

        @model_validator(mode="after")
        def _tokens_are_averaged(self) -> DPO.Config:
            if self.changed != 1.0 and self.length != "mean":
                raise ValueError(f"changed is {self.changed:g}, which weighs tokens in a mean; set length: mean")
            return self

        @model_validator(mode="after")
        def _flips_are_used(self) -> DPO.Config:
            if (self.flips > 0) != (self.loss in ("conservative", "robust")):
                raise ValueError(f"flips is {self.flips:g} and loss is {self.loss}; give both, e.g. robust and 0.1")
            return self

    def setup(self, ctx: Context) -> None:
        ctx.role("reference", frozen=True)
        weighed = sorted({"weight_B", "opponent_B"} & ctx.given)
        if self.config.loss == "plackett-luce" and weighed:
            raise ExperimentError(
                f"plackett-luce gives all rows the same weight, but these rows have the column {weighed[0]}",
                "use loss: sigmoid",
            )

    held_out_figures = (*Comparing.held_out_figures, "chosen_gain", "rejected_gain")

    def columns(self, ctx: Context, batch: Scored) -> Scored:
        if self.config.loss == "plackett-luce" and "preference_B" in batch.extra:
            raise PluginError("plackett-luce needs rankings, but these rows have soft labels", "use loss: sigmoid")
        if self.config.changed != 1.0 and "changed_BT" not in batch.extra:
            raise ExperimentError(
                "changed weighs tokens that a correction changed, but these rows do not say which",
                "read corrections: rollout: {use: judgements, kinds: [correction]}",
            )
        reference_BT = ctx.stats(batch, model="reference", support="whole").logprobs_BT
        beaten_BB = below(batch.group_B, batch.episode_reward_B)
        columns = {"reference_logprobs_BT": reference_BT, "stages_B": beaten_BB.any(1).float()}
        return batch.with_extra(**columns)

    def loss(self, mb: MicroBatch[Scored]) -> Loss:
        c, mask_BT = self.config, mb.batch.mask_BT
        logprobs_BT = mb.stats(support="whole").logprobs_BT
        weight_BT = None if c.changed == 1.0 else 1.0 + (c.changed - 1.0) * mb["changed_BT"].float()
        gain_B = answer_logprob(logprobs_BT - mb["reference_logprobs_BT"], mask_BT, c.length, weight_BT)
        found = comparisons(mb.batch)
        won, lost = gain_B[found.chosen], gain_B[found.rejected]
        self.watch(mb, found, logprobs_BT, c.beta * (won - lost))
        mb.log("chosen_gain", mean(mb, found, won.detach()))
        mb.log("rejected_gain", mean(mb, found, lost.detach()))
        mb.log("both_falling", mean(mb, found, ((won < 0) & (lost < 0)).float()))
        if c.loss == "plackett-luce":
            total: Loss = mb.mean_over("stages_B", picked(c.beta * gain_B, below(mb.batch.group_B, mb.batch.episode_reward_B)))
        else:
            total = mean(mb, found, comparison_loss(c.loss, won, lost, found.preferred, c.beta, c.flips))
        if not c.sft:
            return total
        nll = mean(mb, found, -answer_logprob(logprobs_BT, mask_BT, "mean")[found.chosen])
        mb.log("chosen_nll", nll)
        total += nll * c.sft
        return total


def comparison_loss(kind: Kind, won: Tensor, lost: Tensor, p: Tensor, beta: float, flips: float = 0.0) -> Tensor:
    """The loss of each comparison. won, lost: log π/π_ref of the two answers; p: P(the first is preferred)."""
    if kind == "sppo":
        return (won - (p - 0.5) / beta).square() + (lost + (p - 0.5) / beta).square()
    if kind == "conservative":
        p = (1 - flips) * p + flips * (1 - p)
    if kind == "robust":
        p = true_share(p, flips)

    def f(h: Tensor) -> Tensor:
        match kind:
            case "hinge":
                return relu(1 - h)
            case "ipo":
                return (h / beta - 1 / (2 * beta)).square()
            case _:
                return softplus(-h)

    h = beta * (won - lost)
    return p * f(h) + (1 - p) * f(-h)


def below(group_B: Tensor, reward_B: Tensor) -> Tensor:
    """[B, B]: true where the column's row is of the same group and has a lower reward."""
    return (group_B[:, None] == group_B) & (reward_B[:, None] > reward_B)
