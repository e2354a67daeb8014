"""ED50 and ED90 of targeted attacks, each of whose trials answers 0 or 1: logistic regression on log dose over trials.

A trial has no curve of its own: whatever share is asked of one answer, the dose is the same. So the share is that of
the trials, and the replicates of the interval are trials, drawn again whole (a bootstrap over twenty or so).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, inf, isfinite, log

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from harness.console import format_count
from harness.report.dose_response import Curve, Unsupported, dose_range
from harness.report.estimates import ROOM, DoseEstimate

Array = NDArray[np.float64]
FEWEST = 8  # trials for a regression
DRAWS = 300
TOO_FEW = "a share of the trials needs at least"


def estimate_share(trials: Mapping[int, Curve], share: float = 0.5) -> DoseEstimate:
    """The dose at which this share of the trials gives the wanted answer, with a 95 % interval over trials.

    Raises Unsupported below FEWEST trials, and where their share does not rise with the dose.
    """
    _check(trials)
    found = _dose_of(list(trials.values()), share)
    rng = np.random.default_rng(0)
    draws = [_dose_of([list(trials.values())[i] for i in rng.integers(len(trials), size=len(trials))], share)
             for _ in range(DRAWS)]  # fmt: skip
    return _describe(found, np.array(draws), trials, _first(trials), _last(trials))


def protection_of_share(
    defended: Mapping[int, Curve], undefended: Mapping[int, Curve], share: float = 0.5
) -> DoseEstimate:
    """The ratio of these doses with and without a defense, over the trials of both, which are drawn in pairs.

    Raises Unsupported as `estimate_share`, and where the undefended dose lies beyond those that were run.
    """
    both = sorted(defended.keys() & undefended.keys())
    guarded, plain = {s: defended[s] for s in both}, {s: undefended[s] for s in both}
    _check(plain)
    base = _dose_of(list(plain.values()), share)
    if not _first(plain) <= base <= _last(plain):
        raise Unsupported("beyond the doses without the defense")
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        drawn = [both[i] for i in rng.integers(len(both), size=len(both))]
        draws.append(_dose_of([guarded[s] for s in drawn], share) - _dose_of([plain[s] for s in drawn], share))
    found = _dose_of(list(guarded.values()), share) - base
    return _describe(found, np.array(draws), plain, -inf, _last(guarded) - base)


def _check(trials: Mapping[int, Curve]) -> None:
    if len(trials) < FEWEST:
        raise Unsupported(f"{format_count(len(trials), 'trial')}: {TOO_FEW} {FEWEST}")


def _first(trials: Mapping[int, Curve]) -> float:
    return log(min(curve.doses[curve.doses > 0][0] for curve in trials.values()))


def _last(trials: Mapping[int, Curve]) -> float:
    return log(max(curve.doses[-1] for curve in trials.values()))


def _describe(found: float, draws: Array, trials: Mapping[int, Curve], first: float, last: float) -> DoseEstimate:
    """found, draws: logarithms; inf where the share is never reached. first, last: what can be known lies between."""
    n = len(trials)
    draws = draws[~np.isnan(draws)]  # both beyond the doses: nothing is known of their ratio
    low, high = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
    below = min(float((draws <= 0).mean()), float((draws >= 0).mean()))
    p = min(1.0, 2 * (below * DRAWS + 1) / (DRAWS + 1))
    if found > last:
        end = min(float(low), last)
        return DoseEstimate(exp(end), exp(end), inf, ">", n, p=p)
    if found < first:
        end = max(float(high), first)
        return DoseEstimate(exp(end), 0.0, exp(end), "<", n, p=p)
    if not isfinite(high) or high - low > max(dose_range(trials), ROOM):
        return DoseEstimate(float("nan"), float("nan"), float("nan"), "", n, f"not determined by {n} trials")
    return DoseEstimate(exp(found), exp(low), exp(high), "", n, p=p)


def _dose_of(curves: list[Curve], share: float) -> float:
    """The log dose at which the fitted share of answers is `share`.

    inf, or -inf, where the answers do not rise with the dose and fewer, or so many, are what is wanted at all doses.
    """
    doses = np.concatenate([curve.doses[curve.doses > 0] for curve in curves])
    answers = np.concatenate([curve.asr[curve.doses > 0] for curve in curves])
    at, slope = fit_firth(np.log(doses), answers)
    if slope > 0.05:
        return float((logit(share) - at) / slope)
    return -inf if answers.mean() >= share else inf


def fit_firth(x: Array, y: Array) -> tuple[float, float]:
    """Constant and slope of a logistic regression of answers (N,) on x (N,), by penalised likelihood (Firth 1993).

    Finite where a plain regression is not: where all answers below a dose are 0 and all above it 1.
    """
    design = np.column_stack([np.ones_like(x), x - x.mean()])
    beta = np.zeros(2)
    for _ in range(50):
        p = expit(design @ beta)
        weights = (p * (1 - p)).clip(1e-9)
        inverse = np.linalg.pinv(design.T @ (weights[:, None] * design))
        leverage = weights * np.einsum("ni,ij,nj->n", design, inverse, design)
        step = inverse @ (design.T @ (y - p + leverage * (0.5 - p)))
        beta = beta + step * min(1.0, 2 / max(abs(step).max(), 1e-12))
        if abs(step).max() < 1e-7:
            break
    return float(beta[0] - beta[1] * x.mean()), float(beta[1])
