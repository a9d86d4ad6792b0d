"""Logistic regression by Newton's method, with halved steps: the one that ratings by length, position and choice are fitted with."""

from __future__ import annotations

from typing import Any

import numpy as np

from hookline.runs.samples import Floats

__all__ = ["chance", "logistic"]


def chance(gap: Any) -> Floats:
    """σ(gap), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -np.asarray(gap, np.float64))), np.float64)


def logistic(x_ND: Floats, y_N: Floats, precision_D: Any) -> tuple[Floats, Floats]:
    """[D] weights of P(y = 1) = σ(x·w) at the maximum, and [D, D] the curvature there, with the covariance as its inverse.

    y_N: 0, 1, or between. precision_D: of the normal prior of each weight around 0; 0 leaves a weight free, for data with a finite answer.
    """
    prior_DD = np.diag(np.broadcast_to(np.asarray(precision_D, np.float64), x_ND.shape[1]))

    def loss(w_D: Floats) -> float:
        d = x_ND @ w_D
        return float((np.logaddexp(0, d) - y_N * d).sum() + w_D @ prior_DD @ w_D / 2)

    w_D: Floats = np.zeros(x_ND.shape[1])
    curve_DD: Floats = prior_DD
    for _ in range(200):
        p_N = chance(x_ND @ w_D)
        curve_DD = np.asarray((x_ND * (p_N * (1 - p_N))[:, None]).T @ x_ND + prior_DD)
        step = np.linalg.lstsq(curve_DD, x_ND.T @ (p_N - y_N) + prior_DD @ w_D, rcond=None)[0]
        size, before = 1.0, loss(w_D)
        while loss(w_D - size * step) > before and size > 1e-8:
            size /= 2
        w_D = w_D - size * step
        if float(np.abs(size * step).max(initial=0)) < 1e-10:
            break
    return w_D, curve_DD
