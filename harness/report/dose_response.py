"""Dose-response: from ASR by dose and seed to ED50, protection factor and scaling exponent.

Seeds are the replicates. Each seed has a curve of its own and so an ED50 of its own, known exactly (a fitted curve) or
within an interval (between two doses, beyond the largest). The published numbers are means of their logarithms over
seeds (`harness.report.censored`); more test items only make each point of a curve more precise.
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

from harness.console import format_count
from harness.report import censored
from harness.report.censored import Estimate

Array = NDArray[np.float64]
Bounds = tuple[float, float]  # of a log dose
STEEP = (0.5, 12.0)  # slopes a fitted curve may have
INFORMATIVE = (0.05, 0.95)  # chance-corrected ASR that tells where on a curve a dose lies


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
        """The log dose at which ASR is `level`; -inf where it is always above, inf where it never is."""
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
        """The ASR that is `share` of the way from the chance floor to 1; 0.5 for the ED50. `abbott` inverts it."""
        return self.chance + share * (1 - self.chance)

    @cached_property
    def reach(self) -> Array:
        """(D,) the highest ASR at this dose or a smaller one: an attacker who has 100 samples may use only 10."""
        return np.maximum.accumulate(self.asr)

    @cached_property
    def hill(self) -> Hill:
        return fit_hill(self)


def abbott(asr: Any, chance: Any) -> Any:
    """ASR corrected for chance (Abbott 1925): its share of the way from the floor to 1; numbers, arrays or columns."""
    return (asr - chance) / (1 - chance)


def fit_hill(curve: Curve) -> Hill:
    """The Hill curve of highest binomial likelihood of what the attacker can reach, every dose with the same weight.

    Where no dose is 0, the floor is the chance floor. Raises Unsupported for fewer than two doses above 0.
    """
    positive = np.log(curve.doses[curve.doses > 0])
    if len(positive) < 2:
        raise Unsupported(f"{format_count(len(positive), 'dose')} above 0: a curve needs at least 2")
    y = curve.reach.clip(1e-3, 1 - 1e-3)
    low, high = float(y.min()), float(y.max())

    def loss(v: Array) -> float:
        p = _hill(v).asr(curve.doses).clip(1e-6, 1 - 1e-6)
        return float(-(xlogy(y, p) + xlogy(1 - y, 1 - p)).mean())

    floor = (1e-3, 1.0) if curve.doses[0] == 0 else (curve.chance, curve.chance + 1e-9)
    bounds = [floor, (1e-3, 1.0), (positive[0] - 2, positive[-1] + 2), tuple(np.log(STEEP))]
    half = int(np.searchsorted(y[-len(positive) :], (low + high) / 2))
    starts = positive[max(0, half - 1) : half + 1]  # the likelihood is flat far from the doses where the curve rises
    fits = [
        optimize.minimize(loss, [low, (high - low) / (1 - low), start, log(3.0)], method="L-BFGS-B", bounds=bounds)
        for start in starts
    ]
    return _hill(min(fits, key=lambda fit: fit.fun).x)


def _hill(v: Array) -> Hill:
    floor, share, middle, slope = map(float, v)
    return Hill(floor, floor + share * (1 - floor), middle, float(np.exp(slope)))


def bracket(curve: Curve, share: float, rising: Array) -> Bounds:
    """The two log doses between which a rising sequence (D,) first reaches the level; open beyond the doses.

    Raises Unsupported where the level is reached without any poison, so that the ASR says nothing about a dose, and
    where the ASR cannot rise.
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
    """The log dose at which a seed's ASR is `share` of the way from chance to 1: (x, x), or bounds on it.

    The fitted curve gives a point where a dose lies on its slope. Where ASR steps from nothing to everything between
    two doses, only those two are known. Nothing is extrapolated beyond the doses that were run.
    """
    low, high = bracket(curve, share, curve.reach)
    log_doses = np.log(curve.doses.clip(1e-9))
    corrected = abbott(curve.reach, curve.chance)
    informative = (corrected > INFORMATIVE[0]) & (corrected < INFORMATIVE[1])
    on_slope = (log_doses >= low) & (log_doses <= high) & informative
    if low == -inf or high == inf or not on_slope.any():
        return low, high
    log_dose = min(max(curve.hill.crossing(curve.level(share)), low), high)
    return log_dose, log_dose


@dataclass(frozen=True)
class DoseEstimate:
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
            return f"{self.censored} {format_dose(self.value)}"
        if self.low != self.low:
            return format_dose(self.value)
        upper = f"to {format_dose(self.high)}" if self.high < inf else "or more"
        return f"{format_dose(self.value)} ({format_dose(self.low)} {upper})"


def format_dose(value: float) -> str:
    """Two digits, or all that stand before the point."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def estimate_ed(curves: Mapping[int, Curve], share: float = 0.5) -> DoseEstimate:
    """ED50 (or another share) over seeds: the geometric mean of the effective doses of their curves."""
    bounds = [effective_dose(c, share) for c in curves.values()]
    return exponentiate(bounds, censored.mean(*_columns(bounds)))


def ed_isotonic(curves: Mapping[int, Curve], share: float = 0.5) -> DoseEstimate:
    """As `ed`, from isotonic regressions of the ASR, which assume no shape: each crosses between two doses.

    It is far above `ed` where ASR falls again with the dose.
    """
    isotonic = IsotonicRegression()
    bounds = [bracket(c, share, isotonic.fit_transform(np.arange(len(c.asr)), c.asr)) for c in curves.values()]
    return exponentiate(bounds, censored.mean(*_columns(bounds)))


def protection(defended: Mapping[int, Curve], undefended: Mapping[int, Curve], share: float = 0.5) -> DoseEstimate:
    """Protection factor: ED50 with the defense over ED50 without it, paired by seed.

    Raises Unsupported where no seed is in both, and where half of the seeds or more say nothing about the ratio.
    """
    bounds = []
    for seed in defended.keys() & undefended.keys():
        with_defense, without = effective_dose(defended[seed], share), effective_dose(undefended[seed], share)
        bounds.append((with_defense[0] - without[1], with_defense[1] - without[0]))
    if not bounds:
        raise Unsupported("no seed was run both with and without the defense")
    unknown = sum(low == -inf and high == inf for low, high in bounds)
    if 2 * unknown >= len(bounds):
        are = "is" if unknown == 1 else "are"
        raise Unsupported(f"{unknown} of {len(bounds)} seeds {are} beyond the doses with and without the defense")
    return exponentiate(bounds, censored.mean(*_columns(bounds)))


def scaling_exponent(curves: Mapping[tuple[int, int], Curve], share: float = 0.5) -> Estimate:
    """The slope of log ED50 on log training-set size: 0 is a constant number of samples, 1 a constant rate.

    curves: by (training rows, seed). Raises Unsupported below 2 sizes.
    """
    if len({size for size, _ in curves}) < 2:
        raise Unsupported("one training-set size: a slope needs at least 2")
    bounds = [effective_dose(c, share) for c in curves.values()]
    return censored.slope(*_columns(bounds), np.log([float(size) for size, _ in curves]))


def misfit(curves: Mapping[int, Curve]) -> float:
    """Root mean square distance of the ASR from the fitted curves, over seeds and doses."""
    residuals = [c.asr - c.hill.asr(c.doses) for c in curves.values()]
    return float(np.sqrt(np.mean(np.concatenate(residuals) ** 2)))


def exponentiate(bounds: Sequence[Bounds], estimate: Estimate) -> DoseEstimate:
    """From logarithms to doses or ratios; where most seeds are open on one side, the bound of the median seed."""
    above = [low for low, high in bounds if low > -inf and high == inf]
    below = [high for low, high in bounds if low == -inf and high < inf]
    if 2 * len(above) > len(bounds):
        return DoseEstimate(exp(median(low for low, _ in bounds)), exp(estimate.low), inf, ">", estimate.n)
    if 2 * len(below) > len(bounds):
        return DoseEstimate(exp(median(high for _, high in bounds)), 0.0, exp(estimate.high), "<", estimate.n)
    return DoseEstimate(exp(estimate.value), exp(estimate.low), exp(estimate.high), "", estimate.n)


def _columns(bounds: Sequence[Bounds]) -> tuple[Array, Array]:
    low, high = np.array(bounds, dtype=float).reshape(-1, 2).T
    return low, high
