"""Normal means and slopes of values known only to lie within intervals: the statistics behind ED50s and their ratios.

Every value is interval-censored, a pair low <= y <= high: equal where it is known, (log 10, log 20) where it lies
between two doses, (log 500, inf) where it is beyond the largest dose. Nothing is dropped and nothing is imputed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, log, nan

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import log_ndtr

Array = NDArray[np.float64]
SPREAD = log(1.02), log(100.0)  # smallest and largest standard deviation of a log dose that is believed
FAR = log(1e4)  # an interval that reaches further from the estimate than this factor is open


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval.

    value is inf or -inf where every row is open on that side, nan where no row is informative.
    """

    value: float
    low: float
    high: float
    n: int  # informative rows


def mean(low: Array, high: Array) -> Estimate:
    """The mean of values (N,) between low and high. Without censoring this is the t interval, exactly."""
    return first_coefficient(low, high, np.ones((len(low), 1)))


def slope(low: Array, high: Array, x: Array) -> Estimate:
    """The slope on x (N,) of values between low and high. Without censoring: least squares and its t interval."""
    return first_coefficient(low, high, np.column_stack([x - x.mean(), np.ones(len(x))]))


def first_coefficient(low: Array, high: Array, design: Array) -> Estimate:
    """A normal regression's first coefficient by maximum likelihood (Tobin 1958), with a profile-likelihood interval.

    low, high: (N,). design: (N, P). The threshold of the likelihood ratio is N log(1 + t^2 / (N - P)) instead of the
    chi-squared quantile: the value that makes the interval the exact t interval for data without censoring, so that
    few seeds get an interval as wide as they deserve.
    """
    informative = np.isfinite(low) | np.isfinite(high)
    low, high, design = low[informative], high[informative], design[informative]
    n, p = design.shape
    if not n:
        return Estimate(nan, nan, nan, 0)
    if p == 1 and not np.isfinite(high).any():
        return Estimate(inf, nan, inf, n)
    if p == 1 and not np.isfinite(low).any():
        return Estimate(-inf, -inf, nan, n)
    finite_end = np.where(np.isfinite(low), low, high)
    midpoint = np.where(np.isfinite(low) & np.isfinite(high), (low + high) / 2, finite_end)
    start: Array = np.linalg.lstsq(design, midpoint, rcond=None)[0].astype(np.float64)
    best = _maximise(low, high, design, start)
    value = float(best.x[0])
    if n <= p or np.linalg.matrix_rank(design) < p:
        return Estimate(value, nan, nan, n)
    drop = n / 2 * np.log1p(stats.t.ppf(0.975, n - p) ** 2 / (n - p))
    threshold = -best.fun - drop

    def margin(coefficient: float) -> float:
        """How far the profile log-likelihood lies above the threshold."""
        shift = coefficient * design[:, 0]
        return float(-_maximise(low - shift, high - shift, design[:, 1:], best.x[1:-1]).fun - threshold)

    return Estimate(value, _interval_end(margin, value, -1), _interval_end(margin, value, 1), n)


def _maximise(low: Array, high: Array, design: Array, start: Array) -> optimize.OptimizeResult:
    """The coefficients and log standard deviation of highest likelihood; `fun` is minus the log-likelihood."""
    p = design.shape[1]

    def loss(v: Array) -> float:
        return -log_likelihood(low, high, design @ v[:p], float(v[p]))

    if not p:
        best = optimize.minimize_scalar(lambda s: loss(np.array([s])), bounds=np.log(SPREAD), method="bounded")
        return optimize.OptimizeResult(x=np.array([best.x]), fun=best.fun)
    bounds = [(None, None)] * p + [tuple(np.log(SPREAD))]
    fits = [optimize.minimize(loss, np.append(start, s), method="L-BFGS-B", bounds=bounds) for s in (-2.0, 0.0)]
    return min(fits, key=lambda fit: fit.fun)


def log_likelihood(low: Array, high: Array, centre: Array, log_spread: float) -> float:
    """The log-likelihood of values between low and high under normal distributions around `centre` (N,)."""
    known = low == high
    a, b = (low - centre) / np.exp(log_spread), (high - centre) / np.exp(log_spread)
    points = -0.5 * a[known] ** 2 - log_spread - 0.5 * log(2 * np.pi)
    # The tail with the smaller arguments keeps its digits.
    flip = a[~known] > 0
    lower, upper = np.where(flip, -b[~known], a[~known]), np.where(flip, -a[~known], b[~known])
    mass = log_ndtr(upper) + np.log1p(-np.exp(np.minimum(log_ndtr(lower) - log_ndtr(upper), -1e-12)))
    return float(points.sum() + mass.sum())


def _interval_end(margin: Callable[[float], float], value: float, sign: int) -> float:
    """Where the profile likelihood falls to the threshold on one side of the estimate; infinite if it never does."""
    step = 0.1
    while step < FAR:
        if margin(value + sign * step) < 0:
            inner = value + sign * step / 2 if step > 0.1 else value
            return float(optimize.brentq(margin, inner, value + sign * step, xtol=1e-4))
        step *= 2
    return sign * inf
