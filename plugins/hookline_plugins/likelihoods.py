"""What people say about answers, as probabilities given rewards: functions from tensors to negative log-likelihoods.

N judgements, K candidates or levels; d is the reward of the first candidate minus that of the second. Each function returns one
value per judgement, in nats, and is finite for any finite rewards. `log_…` arguments are logarithms of positive parameters.
"""

from __future__ import annotations

from math import exp, log, pi
from random import Random
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

__all__ = [
    "FIRST",
    "KINDS",
    "NEITHER",
    "SECOND",
    "TIE",
    "beta",
    "bradley_terry",
    "cumulative_logit",
    "cut_logits",
    "davidson",
    "davidson_luce",
    "honest",
    "increasing",
    "mixed",
    "normal",
    "picked",
    "plackett_luce",
    "rao_kupper",
    "reliable",
    "resampled",
    "soft_binary",
    "squeezed",
    "successive",
    "true_share",
    "with_outside_option",
]

Share = TypeVar("Share", Tensor, float)
KINDS = ("comparison", "ranking", "rating", "thumb", "correction", "spans")
"""The kinds of judgements by their number in the column `kind_B`. Spans say something about tokens, the others about answers."""
FIRST, SECOND, TIE, NEITHER = range(4)
"""What a comparison can come to: the columns of log-probabilities. NEITHER: both candidates are bad."""


# -- comparisons


def bradley_terry(d_N: Tensor, p_N: Tensor | float = 1.0, margin_N: Tensor | float = 0.0) -> Tensor:
    """Bradley and Terry (1952): P(first) = σ(d), [N]. p: the label, P(first) as it was judged, in [0, 1] or of `true_share`.

    margin: how much larger the better reward has to be; it moves the optimum, unlike a weight.
    """
    return p_N * softplus(margin_N - d_N) + (1 - p_N) * softplus(margin_N + d_N)


def true_share(p_N: Share, flips: float) -> Share:
    """The label whose loss is, in expectation, the loss of the true label p when a share `flips` < ½ of labels is wrong.

    It lies outside [0, 1], so that the loss has no lower bound (Natarajan et al. 2013; Chowdhury et al. 2024).
    """
    return (p_N - flips) / (1 - 2 * flips)


def davidson(d_N: Tensor, log_nu: Tensor) -> Tensor:
    """Log-probabilities of first, second and tie, [N, 3], with ν = exp(log_nu): P(tie | d = 0) = ν/(2 + ν) (Davidson 1970)."""
    return torch.stack([d_N / 2, -d_N / 2, log_nu.expand_as(d_N)], -1).log_softmax(-1)


def rao_kupper(d_N: Tensor, log_eta: Tensor) -> Tensor:
    """Log-probabilities of first, second and tie, [N, 3]: differences below η = exp(log_eta) are not noticed.

    P(first) = σ(d − η) and P(tie | d = 0) = (θ − 1)/(θ + 1) with θ = exp η (Rao and Kupper 1967).
    """
    eta = log_eta.exp().expand_as(d_N)
    first, second = logsigmoid(d_N - eta), logsigmoid(-d_N - eta)
    return torch.stack([first, second, 2 * eta + torch.log(-torch.expm1(-2 * eta)) + first + second], -1)


def with_outside_option(logprobs_NK: Tensor, first_N: Tensor, second_N: Tensor, outside: Tensor) -> Tensor:
    """Log-probabilities of first, second, tie and neither, [N, 4], from those of a comparison without it, [N, 2 or 3].

    P(neither) = e^u/(e^r₁ + e^r₂ + e^u) with u = outside, the reward that an acceptable answer exceeds (McFadden 1974). Rewards
    have a zero then. first, second: the rewards of the candidates.
    """
    both_N = torch.logaddexp(first_N, second_N)
    kept_N, neither_N = logsigmoid(both_N - outside), logsigmoid(outside - both_N)
    said_N3 = kept_N[:, None] + logprobs_NK
    if said_N3.shape[1] == 2:
        said_N3 = torch.cat([said_N3, torch.full_like(said_N3[:, :1], -torch.inf)], 1)
    return torch.cat([said_N3, neither_N[:, None]], 1)


def reliable(nll_N: Tensor, opposite_N: Tensor, logit_N: Tensor) -> Tensor:
    """An annotator that says what was meant with probability q = σ(logit) and the opposite otherwise (Chen et al. 2013), [N].

    q < ½ is an annotator that answers the wrong way round. opposite: the loss of the opposite answer.
    """
    return -torch.logaddexp(logsigmoid(logit_N) - nll_N, logsigmoid(-logit_N) - opposite_N)


def honest(logit_N: Tensor) -> Tensor:
    """−log of the density of the prior Beta(10, 1) of q = σ(logit), less a constant, [N].

    As if nine answers more were known to be meant (Chen et al. 2013): most annotators are taken to mean what they say, without which
    the opposite of all rewards from annotators who all say the opposite would explain the answers as well.
    """
    return -9 * logsigmoid(logit_N)


# -- rankings


def plackett_luce(score_NK: Tensor, level_NK: Tensor) -> Tensor:
    """Luce (1959) and Plackett (1975): the best of those that are left is picked, again and again, [N].

    level: higher is better; NaN for candidates that were not ranked and for padding. Candidates of one level are not compared
    with each other: each is picked among itself and those below it. Two candidates are Bradley–Terry.
    """
    ranked_NK = ~level_NK.isnan()
    level_NK = level_NK.nan_to_num()
    below_NKK = (level_NK[:, None, :] < level_NK[:, :, None]) & ranked_NK[:, None, :]
    return torch.where(ranked_NK, picked(score_NK, below_NKK), 0.0).sum(1)


def picked(score_NK: Tensor, below_NKK: Tensor) -> Tensor:
    """−log P(a candidate is picked among itself and those below it), [..., K]; 0 where there are none (Luce 1959).

    below: true where the candidate of the last dimension is below that of the one before, [..., K, K].
    """
    among_NKK = below_NKK | torch.eye(below_NKK.shape[-1], dtype=torch.bool, device=below_NKK.device)
    return score_NK[..., None, :].masked_fill(~among_NKK, -torch.inf).logsumexp(-1) - score_NK


def davidson_luce(score_NK: Tensor, level_NK: Tensor, log_delta_D: Tensor) -> Tensor:
    """Plackett–Luce in which up to D + 1 candidates can tie (Firth, Kosmidis and Turner 2019), [N].

    A set of n candidates is picked with weight δ_n (Π of their worths)^(1/n), δ_1 = 1 and δ_n = exp(log_delta_D[n − 2]). With two
    candidates it is `davidson`, ν = δ_2. level: as for `plackett_luce`. Raises ValueError for a tie of more candidates.
    """
    ranked_NK = ~level_NK.isnan()
    level_NK = torch.where(ranked_NK, level_NK, -torch.inf)
    log_delta = torch.cat([log_delta_D.new_zeros(1), log_delta_D])
    total_N = score_NK.new_zeros(len(score_NK))
    left_NK = ranked_NK
    for _ in range(score_NK.shape[1]):
        left_N = left_NK.any(1)
        if not bool(left_N.any()):
            break
        best_NK = left_NK & (level_NK == level_NK.masked_fill(~left_NK, -torch.inf).amax(1, keepdim=True))
        size_N = best_NK.sum(1)
        if int(size_N.max()) > len(log_delta):
            raise ValueError(f"a tie of {int(size_N.max())} candidates; the model has ties of {len(log_delta)} at most")
        mean_N = torch.where(best_NK, score_NK, 0.0).sum(1) / size_N.clamp(min=1)
        picked_N = log_delta[(size_N - 1).clamp(min=0)] + mean_N
        last_N = left_NK.sum(1) <= 1  # a single candidate is picked for certain
        of_all_N = _log_of_all_sets(score_NK, left_NK, log_delta)
        total_N = total_N + torch.where(left_N & ~last_N, of_all_N - picked_N, 0.0)
        left_NK = left_NK & ~best_NK
    return total_N


def _log_of_all_sets(score_NK: Tensor, left_NK: Tensor, log_delta: Tensor) -> Tensor:
    """log Σ over sets of candidates that are left of δ_n (Π worths)^(1/n), by elementary symmetric polynomials."""
    sums = []
    for n in range(1, 1 + min(len(log_delta), score_NK.shape[1])):
        impossible_N = torch.full_like(score_NK[:, 0], LEAST)
        chosen = [torch.zeros_like(score_NK[:, 0]), *(impossible_N for _ in range(n))]
        for k in range(score_NK.shape[1]):
            here_N = torch.where(left_NK[:, k], score_NK[:, k] / n, LEAST)
            chosen = [chosen[0], *(torch.logaddexp(chosen[i], chosen[i - 1] + here_N) for i in range(1, n + 1))]
        sums.append(log_delta[n - 1] + chosen[n])
    return torch.stack(sums, -1).logsumexp(-1)


LEAST = -1e30
"""The logarithm of a weight that counts for nothing; unlike −inf it has a gradient, which is 0."""


# -- ratings: levels 0 … K − 1


def increasing(first: Tensor, gaps_K2: Tensor) -> Tensor:
    """K − 1 thresholds that never cross: the first one, and the others above it by softplus of the gaps, [K − 1]."""
    return torch.cat([first.reshape(1), first + softplus(gaps_K2).cumsum(0)])


def cumulative_logit(mean_N: Tensor, level_N: Tensor, thresholds: Tensor) -> Tensor:
    """McCullagh (1980): P(level ≤ k) = σ(threshold_k − mean), [N]. thresholds: increasing, [K − 1]. level: int64 [N]."""
    K = len(thresholds) + 1
    above_N = thresholds[level_N.clamp(max=K - 2)] - mean_N
    below_N = thresholds[(level_N - 1).clamp(min=0)] - mean_N
    inside_N = (level_N > 0) & (level_N < K - 1)
    gap_N = torch.where(inside_N, above_N - below_N, 1.0)
    between_N = logsigmoid(above_N) + logsigmoid(-below_N) + torch.log(-torch.expm1(-gap_N))
    return -torch.where(inside_N, between_N, torch.where(level_N == 0, logsigmoid(above_N), logsigmoid(-below_N)))


def cut_logits(logits_NK: Tensor, level_N: Tensor) -> Tensor:
    """CORAL (Cao et al. 2020): K − 1 questions "is it above level k?", each answered for itself, summed, [N]. logits: [N, K − 1]."""
    above_NK = level_N[:, None] > torch.arange(logits_NK.shape[1], device=logits_NK.device)
    return softplus(torch.where(above_NK, -logits_NK, logits_NK)).sum(1)


def successive(logits_NK: Tensor, level_N: Tensor) -> Tensor:
    """CORN (Shi et al. 2023): "is it above level k, given that it is above k − 1?", [N]. logits: [N, K − 1].

    The sum over the questions that arise is the likelihood of the level. CORN's own loss divides by the number of questions.
    """
    k = torch.arange(logits_NK.shape[1], device=logits_NK.device)
    nll_NK = softplus(torch.where(level_N[:, None] > k, -logits_NK, logits_NK))
    return torch.where(level_N[:, None] >= k, nll_NK, 0.0).sum(1)


# -- numbers


def normal(mean_N: Tensor, mark_N: Tensor, log_std: Tensor) -> Tensor:
    """A mark with normal noise, [N]."""
    return 0.5 * ((mark_N - mean_N) * torch.exp(-log_std)).square() + log_std + 0.5 * log(2 * pi)


def soft_binary(logit_N: Tensor, share_N: Tensor | float) -> Tensor:
    """Binary cross-entropy with a label in [0, 1], [N]: a mark between 0 and 1, or a thumb."""
    return softplus(logit_N) - share_N * logit_N


def squeezed(share_N: Tensor, n: int) -> Tensor:
    """(y (n − 1) + ½)/n: shares in [0, 1] moved off the ends, of which no Beta distribution has any (Smithson, Verkuilen 2006)."""
    return (share_N * (n - 1) + 0.5) / n


def beta(logit_N: Tensor, share_N: Tensor, log_precision: Tensor) -> Tensor:
    """A share in (0, 1) of a Beta distribution with mean σ(logit) and precision φ (Ferrari and Cribari-Neto 2004), [N]."""
    phi = log_precision.exp()
    # a and b stay above 0 where the mean rounds to 0 or 1
    a_N, b_N = (torch.sigmoid(x).clamp(min=1e-6) * phi for x in (logit_N, -logit_N))
    weight_N = torch.lgamma(a_N + b_N) - torch.lgamma(a_N) - torch.lgamma(b_N)
    return -(weight_N + (a_N - 1) * torch.log(share_N) + (b_N - 1) * torch.log1p(-share_N))


# -- several rewards


def mixed(nll_NM: Tensor, log_share_NM: Tensor) -> Tensor:
    """The loss of a judgement by an annotator who is of one of M kinds, with these log-probabilities, [N]."""
    return -torch.logsumexp(log_share_NM - nll_NM, -1)


def resampled(number_N: Tensor, members: int) -> Tensor:
    """How often each judgement is in the resample of each member of an ensemble, Poisson with mean 1, float [N, members].

    A function of the judgement's number alone, so that a judgement has the same weights whenever it comes (Oza and Russell 2001).
    """
    counts = torch.tensor([[_poisson(Random(f"{n}/{m}").random()) for m in range(members)] for n in number_N.tolist()])
    return counts.reshape(len(number_N), members).float()


def _poisson(u: float) -> int:
    """The quantile of a Poisson distribution with mean 1."""
    count, chance, total = 0, exp(-1), exp(-1)
    while u > total and count < 20:
        count += 1
        chance /= count
        total += chance
    return count
