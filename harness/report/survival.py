"""In how many seeds has an attack reached its level by a dose? What is shown where seeds have no mean."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, inf

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.report.dose_response import Curve, effective_dose

Array = NDArray[np.float64]
SPLIT = "never in|at once in"  # words of an ED50 whose seeds fall into two groups


def seeds_won(curves: Mapping[int, Curve], share: float = 0.5) -> tuple[Array, Array]:
    """Doses (S,) and the share of seeds (S,) in which the attack has reached its level by then, by Kaplan and Meier.

    curves: by seed, the attacker's doses chosen (`choose_doses`). A seed that reaches it below its smallest dose counts
    there; one that never does counts as not known beyond its largest dose. S is 0 where no seed reaches it.
    """
    bounds = [effective_dose(curve, share) for curve in curves.values()]
    won = [exp(high) for _, high in bounds if high < inf]
    never = [exp(low) for low, high in bounds if high == inf]
    if not won:
        return np.array([]), np.array([])
    found = stats.ecdf(stats.CensoredData(uncensored=won, right=never)).cdf
    reached = np.isin(found.quantiles, won)
    return found.quantiles[reached], found.probabilities[reached]
