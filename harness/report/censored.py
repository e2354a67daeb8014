"""The mean over few seeds of values known only to lie within intervals: the statistics behind ED50s and their ratios.

Every value is interval-censored, a pair low <= y <= high: equal where it is known, (log 10, log 20) where it lies
between two doses, (log 500, inf) where it is beyond the largest dose. Nothing is dropped and nothing is imputed.

How far seeds lie apart cannot be learnt from three of them. What is known of it from 128 published curves is the prior:
a log-normal distribution of the standard deviation, with tails of Student's t so that odd seeds are believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import comb, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import log_ndtr, logsumexp

Array = NDArray[np.float64]
USUAL_SPREAD = 0.27  # the median standard deviation of log ED50 between seeds, over the published curves
SPREAD_OF_SPREADS = 0.8  # and that of its logarithm
TAIL = 4.0  # degrees of freedom of the prior's tails
SPREADS = np.geomspace(0.01, 5.0, 50)
POINTS = 240  # of the grid of means
MASS = 1e-9  # of a point of the grid, relative to the best, below which it is left out
REACH = 12.0  # how far from the values the mean is looked for: a factor of e^12


class Interval(NamedTuple):
    """Low and high end, 95 %."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is known of a mean: a density on a grid. Made by `mean_of`."""

    at: Array  # (G,) rising
    density: Array  # (G,) up to a factor

    @cached_property
    def _cumulated(self) -> Array:
        steps = np.diff(self.at) * (self.density[1:] + self.density[:-1]) / 2
        total: Array = np.concatenate([[0.0], np.cumsum(steps)])
        total /= total[-1]
        return total

    def quantile(self, share: float) -> float:
        return float(np.interp(share, self._cumulated, self.at))

    @property
    def value(self) -> float:
        """The median."""
        return self.quantile(0.5)

    @property
    def interval(self) -> Interval:
        return Interval(self.quantile(0.025), self.quantile(0.975))

    def within(self, low: float, high: float) -> float:
        """The probability that the mean lies between two values."""
        below = np.interp([low, high], self.at, self._cumulated)
        return float(below[1] - below[0])

    def p_zero(self) -> float:
        """Two-sided p of a mean of 0, from the same density as `interval`: below .05 where that leaves 0 out."""
        below = float(np.interp(0.0, self.at, self._cumulated, left=0.0, right=1.0))
        return min(1.0, 2 * min(below, 1 - below))


def mean_of(low: Array, high: Array, scale: float = 1.0) -> Posterior:
    """The mean of normal values (N,) between low and high, its spread between seeds marginalised over the prior.

    scale: what the usual spread is to be multiplied by; 1 for log doses and their ratios. At least one value must be
    closed, or the mean could be anywhere beyond the bounds: ValueError.
    """
    if not (np.isfinite(low) & np.isfinite(high)).any():
        raise ValueError("no value with two finite ends: the mean has no bound on one side at least")
    ends = np.concatenate([low[np.isfinite(low)], high[np.isfinite(high)]])
    first, last = ends.min() - REACH * scale, ends.max() + REACH * scale
    at = np.unique(np.concatenate([np.linspace(first, last, POINTS), np.linspace(ends.min(), ends.max(), POINTS)]))
    for _ in range(2):  # the second grid covers what the first has found likely
        logs = _log_density(low, high, at, scale)
        likely = np.flatnonzero(logs > logs.max() + log(MASS))
        at = np.linspace(at[max(0, likely[0] - 1)], at[min(len(at) - 1, likely[-1] + 1)], POINTS)
    logs = _log_density(low, high, at, scale)
    return Posterior(at, np.exp(logs - logs.max()))


def _log_density(low: Array, high: Array, at: Array, scale: float) -> Array:
    """The log-likelihood of the means `at` (G,), the spread summed out."""
    spreads = SPREADS * scale
    logs = np.tile(_log_prior(), (len(at), 1))
    for a, b in zip(low, high):
        logs += log_likelihood(float(a), float(b), at[:, None], spreads[None, :])
    summed: Array = logsumexp(logs, axis=1)
    return summed


def _log_prior() -> Array:
    """Of SPREADS, which are even in their logarithm."""
    logs: Array = stats.t.logpdf(np.log(SPREADS / USUAL_SPREAD) / SPREAD_OF_SPREADS, TAIL)
    logs -= logsumexp(logs)
    return logs


def log_likelihood(low: float, high: float, centre: Array, spread: Array) -> Array:
    """The log-likelihood of one value between low and high under normal distributions: shapes as of centre, spread."""
    a, b = (low - centre) / spread, (high - centre) / spread
    if low == high:
        point: Array = -0.5 * a**2 - np.log(spread)
        return point
    # The tail with the smaller arguments keeps its digits.
    flip = a > 0
    lower, upper = np.where(flip, -b, a), np.where(flip, -a, b)
    mass: Array = log_ndtr(upper) + np.log1p(-np.exp(np.minimum(log_ndtr(lower) - log_ndtr(upper), -1e-12)))
    return mass


def p_beyond(bounds: Array, seeds: int, mean: float) -> float:
    """The probability that seeds lie above their bounds (K,), and the others anywhere, if their mean is `mean`.

    Over the prior's spreads. Which of the seeds do was not known before, for which there are (seeds over K) ways.
    """
    above = log_ndtr((mean - bounds[:, None]) / SPREADS).sum(axis=0)
    return min(1.0, comb(seeds, len(bounds)) * float(np.exp(_log_prior() + above).sum()))


def lower_limit(bounds: Array, seeds: int) -> float:
    """The 95 % lower limit of the mean of seeds of which K lie above their bounds (K,); never above all of these."""
    most = float(bounds.max())

    def excess(mean: float) -> float:
        return p_beyond(bounds, seeds, mean) - 0.025

    return most if excess(most) <= 0 else float(optimize.brentq(excess, bounds.min() - 60, most, xtol=1e-4))
