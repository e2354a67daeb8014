"""Dose-response: from ASR by dose and seed to ED50, protection factor and scaling exponent.

Seeds are the replicates. Each seed has a curve of its own and so an ED50 of its own, known exactly (a fitted curve) or
within an interval (between two doses, beyond the largest). What is published are means of their logarithms over seeds
(`harness.report.censored`); test items only make each point of a curve precise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, inf, log
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import expit, xlogy
from sklearn.isotonic import IsotonicRegression

from harness.console import counted
from harness.report import censored
from harness.report.censored import Estimate

Array = NDArray[np.float64]
Bounds = tuple[float, float]  # of a log dose
STEEP = (0.5, 12.0)  # slopes a fitted curve may have
INFORMATIVE = (0.05, 0.95)  # excess ASR that tells where on a curve a dose lies


class Unsupported(ValueError):
    """The data cannot carry the number asked for; the message says why."""


@dataclass(frozen=True)
class Hill:
    """ASR(dose) = floor + (ceiling - floor) / (1 + (middle / dose)^slope): log-logistic, rising."""

    floor: float
    ceiling: float
    middle: float  # log dose
    slope: float

    def asr(self, doses: Array) -> Array:
        """At doses (D,); dose 0 gives the floor."""
        with np.errstate(divide="ignore"):
            rise: Array = expit(self.slope * (np.log(doses) - self.middle))
        return self.floor + (self.ceiling - self.floor) * rise

    def crossing(self, level: float) -> float:
        """The log dose at which ASR is `level`; -inf or inf where it always or never is above."""
        if level <= self.floor:
            return -inf
        if level >= self.ceiling:
            return inf
        return self.middle + log((level - self.floor) / (self.ceiling - level)) / self.slope


@dataclass(frozen=True, eq=False)
class Curve:
    """ASR of one attack under one defense, one seed."""

    doses: Array  # (D,) rising, may begin with 0
    asr: Array  # (D,)
    chance: float  # the chance floor: ASR of the undefended dose-0 victim on the same challenge

    def level(self, share: float) -> float:
        return level(self.chance, share)

    @cached_property
    def reach(self) -> Array:
        """(D,) the highest ASR at this dose or a smaller one: nobody who has 100 samples need use more than 10."""
        return np.maximum.accumulate(self.asr)

    @cached_property
    def hill(self) -> Hill:
        return fit(self)


def level(chance: float, share: float) -> float:
    """The ASR that is `share` of the way from the chance floor to 1 (Abbott 1925): 0.5 gives ED50's."""
    return chance + share * (1 - chance)


def excess(asr: Any, chance: Any) -> Any:
    """The other way round: how much of the way an ASR is; numbers, arrays or columns."""
    return (asr - chance) / (1 - chance)


def fit(curve: Curve) -> Hill:
    """The Hill curve of highest binomial likelihood of what the attacker can reach, every dose with the same weight.

    Where no dose is 0 the floor is the chance floor. Raises Unsupported for less than two doses above 0.
    """
    positive = np.log(curve.doses[curve.doses > 0])
    if len(positive) < 2:
        raise Unsupported(f"{counted(len(positive), 'dose')} above 0: a curve needs at least 2")
    y = curve.reach.clip(1e-3, 1 - 1e-3)
    low, high = float(y.min()), float(y.max())

    def loss(v: Array) -> float:
        p = _hill(v).asr(curve.doses).clip(1e-6, 1 - 1e-6)
        return float(-(xlogy(y, p) + xlogy(1 - y, 1 - p)).mean())

    floor = (1e-3, 1.0) if curve.doses[0] == 0 else (curve.chance, curve.chance + 1e-9)
    bounds = [floor, (1e-3, 1.0), (positive[0] - 2, positive[-1] + 2), tuple(np.log(STEEP))]
    half = int(np.searchsorted(y[-len(positive) :], (low + high) / 2))
    starts = positive[max(0, half - 1) : half + 1]  # the likelihood is flat far from the doses where the curve rises
    tries = [
        optimize.minimize(loss, [low, (high - low) / (1 - low), at, log(3.0)], method="L-BFGS-B", bounds=bounds)
        for at in starts
    ]
    return _hill(min(tries, key=lambda t: t.fun).x)


def _hill(v: Array) -> Hill:
    floor, share, middle, slope = map(float, v)
    return Hill(floor, floor + share * (1 - floor), middle, float(np.exp(slope)))


def bracket(curve: Curve, share: float, rising: Array) -> Bounds:
    """Between which two log doses a rising sequence (D,) first reaches the level; open below or above the doses.

    Raises Unsupported where it does so without any poison (the ASR then says nothing about a dose) or cannot rise.
    """
    if curve.chance >= 1:
        raise Unsupported("the chance floor is 1: the clean victim always gives the wanted answer")
    if not curve.doses.any():
        raise Unsupported("no dose above 0 was run")
    reached = rising >= curve.level(share)
    if not reached.any():
        return log(curve.doses[-1]), inf
    first = int(reached.argmax())
    if curve.doses[first] == 0:
        raise Unsupported(f"ASR is {curve.asr[0]:.2f} without any poison, above the {curve.level(share):.2f} asked for")
    below = curve.doses[first - 1] if first else 0.0
    return (log(below) if below else -inf), log(curve.doses[first])


def effective_dose(curve: Curve, share: float = 0.5) -> Bounds:
    """Where this seed's ASR reaches `share` of the way from chance to 1: (x, x), or the interval that holds it.

    The fitted curve gives a point where a dose lies on its slope. Where ASR steps from nothing to everything between
    two doses only those two are known. Nothing is extrapolated beyond the doses that were run.
    """
    low, high = bracket(curve, share, curve.reach)
    log_doses = np.log(curve.doses.clip(1e-9))
    way = excess(curve.reach, curve.chance)
    on_slope = (log_doses >= low) & (log_doses <= high) & (way > INFORMATIVE[0]) & (way < INFORMATIVE[1])
    if low == -inf or high == inf or not on_slope.any():
        return low, high
    at = min(max(curve.hill.crossing(curve.level(share)), low), high)
    return at, at


@dataclass(frozen=True)
class Published:
    """A dose or a ratio with its 95 % interval. censored: "<" or ">" where `value` is only a bound."""

    value: float
    low: float
    high: float
    censored: str
    seeds: int

    def __str__(self) -> str:
        if self.value != self.value:
            return "-"
        if self.censored:
            return f"{self.censored} {short(self.value)}"
        if self.low != self.low:
            return short(self.value)
        upper = f"to {short(self.high)}" if self.high < inf else "or more"
        return f"{short(self.value)} ({short(self.low)} {upper})"


def short(value: float) -> str:
    """Two digits, or all that stand before the point."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def ed(curves: Mapping[int, Curve], share: float = 0.5) -> Published:
    """ED50 (or another share) over seeds: the geometric mean of what every seed's curve says."""
    bounds = [effective_dose(c, share) for c in curves.values()]
    return publish(bounds, censored.mean(*_columns(bounds)))


def ed_without_model(curves: Mapping[int, Curve], share: float = 0.5) -> Published:
    """The check that assumes no shape: from where isotonic regressions of the ASR cross, between two doses each.

    Far above `ed` where ASR falls again with the dose.
    """
    isotonic = IsotonicRegression()
    bounds = [bracket(c, share, isotonic.fit_transform(np.arange(len(c.asr)), c.asr)) for c in curves.values()]
    return publish(bounds, censored.mean(*_columns(bounds)))


def protection(defended: Mapping[int, Curve], undefended: Mapping[int, Curve], share: float = 0.5) -> Published:
    """ED50 with the defense over ED50 without, seed by seed. Raises Unsupported where no seed is in both."""
    bounds = []
    for seed in defended.keys() & undefended.keys():
        top, bottom = effective_dose(defended[seed], share), effective_dose(undefended[seed], share)
        bounds.append((top[0] - bottom[1], top[1] - bottom[0]))
    if not bounds:
        raise Unsupported("no seed was run both with and without the defense")
    unknown = sum(low == -inf and high == inf for low, high in bounds)
    if 2 * unknown >= len(bounds):
        are = "is" if unknown == 1 else "are"
        raise Unsupported(f"{unknown} of {len(bounds)} seeds {are} beyond the doses with and without the defense")
    return publish(bounds, censored.mean(*_columns(bounds)))


def scaling(curves: Mapping[tuple[int, int], Curve], share: float = 0.5) -> Estimate:
    """Slope of log ED50 on log training-set size: 0, a constant number of samples; 1, a constant rate.

    curves: by (training rows, seed). Raises Unsupported below 2 sizes.
    """
    if len({size for size, _ in curves}) < 2:
        raise Unsupported("one training-set size: a slope needs at least 2")
    bounds = [effective_dose(c, share) for c in curves.values()]
    return censored.slope(*_columns(bounds), np.log([float(size) for size, _ in curves]))


def misfit(curves: Mapping[int, Curve]) -> float:
    """Root mean square distance of the ASR from the fitted curves, over seeds and doses."""
    apart = [c.asr - c.hill.asr(c.doses) for c in curves.values()]
    return float(np.sqrt(np.mean(np.concatenate(apart) ** 2)))


def publish(bounds: Sequence[Bounds], found: Estimate) -> Published:
    """From logarithms to doses or ratios; where most seeds are open on one side, the bound of the median seed."""
    above = [low for low, high in bounds if low > -inf and high == inf]
    below = [high for low, high in bounds if low == -inf and high < inf]
    if 2 * len(above) > len(bounds):
        return Published(exp(median(low for low, _ in bounds)), exp(found.low), inf, ">", found.n)
    if 2 * len(below) > len(bounds):
        return Published(exp(median(high for _, high in bounds)), 0.0, exp(found.high), "<", found.n)
    return Published(exp(found.value), exp(found.low), exp(found.high), "", found.n)


def _columns(bounds: Sequence[Bounds]) -> tuple[Array, Array]:
    low, high = np.array(bounds, dtype=float).reshape(-1, 2).T
    return low, high
