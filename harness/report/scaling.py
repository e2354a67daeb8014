"""Does an attack need a number of samples or a rate of them? ED50 against training-set size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import inf, log, nan

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.console import format_count
from harness.report import censored
from harness.report.dose_response import Curve, Unsupported, effective_dose
from harness.report.estimates import FEWEST, Bounds

Array = NDArray[np.float64]
MARGIN = 0.1  # an exponent smaller than this is a number of samples: two decades of sizes move ED50 by less than 1.6
SURE = 0.95
READING = 0.05  # how well a curve is read at best, as a standard deviation of log ED50


@dataclass(frozen=True)
class Exponent:
    """The slope of log ED50 on log training-set size: 0 is a constant number of samples, 1 a constant rate.

    low, high: 95 % interval over the slopes of single seeds; nan below three seeds or where they do not determine it.
    local: between neighbouring sizes. lack_of_fit: the p value of a straight line; small where the sizes leave it.
    is_number: the probability that the exponent is within MARGIN of 0. open_share: of the ED50s, those that are known
    on one side only, where a number that cannot fall below the smallest dose has no exponent to show.
    """

    value: float
    low: float
    high: float
    seeds: int
    rows: int
    local: tuple[float, ...]
    lack_of_fit: float
    is_number: float
    open_share: float

    @property
    def verdict(self) -> str:
        """What the data say, in words."""
        if self.low != self.low:
            return f"not determined by {format_count(self.seeds, 'seed')}"
        if self.lack_of_fit < 1 - SURE:
            return "no power law"
        if self.is_number > SURE:
            return f"a number: within {MARGIN} of 0"
        if self.low > MARGIN:
            return "grows with the size"
        return "falls with the size" if self.high < -MARGIN else "undecided"


def scaling_exponent(curves: Mapping[tuple[int, int], Curve], share: float = 0.5) -> Exponent:
    """The exponent from one slope per seed, which differ as seeds do, whatever seeds have in common over the sizes.

    curves: by (training rows, seed). Raises Unsupported below 2 sizes, and where no seed was run at two.
    """
    sizes = sorted({size for size, _ in curves})
    if len(sizes) < 2:
        raise Unsupported("one training-set size: a slope needs at least 2")
    bounds = {place: effective_dose(curve, share) for place, curve in curves.items()}
    by_seed: dict[int, dict[int, Bounds]] = {}
    for (size, seed), found in bounds.items():
        by_seed.setdefault(seed, {})[size] = found
    by_seed = {seed: found for seed, found in by_seed.items() if len(found) >= 2}
    if not by_seed:
        raise Unsupported("no seed was run at two training-set sizes")
    slopes = [_slope_of(found) for found in by_seed.values()]
    low, high = np.array(slopes).T
    value, ends, is_number = nan, censored.Interval(nan, nan), nan
    known = np.isfinite(low) | np.isfinite(high)
    if (np.isfinite(low) & np.isfinite(high)).sum() >= FEWEST:
        spread = np.log(sizes).std() * len(sizes) ** 0.5
        mean = censored.mean_of(low[known], high[known], scale=1 / spread)
        value, ends, is_number = mean.value, mean.interval, mean.within(-MARGIN, MARGIN)
    is_open = [a == -inf or b == inf for a, b in bounds.values()]
    local, p = _local_and_fit(by_seed, sizes)
    return Exponent(value, *ends, len(by_seed), len(bounds), local, p, is_number, float(np.mean(is_open)))


def _slope_of(found: Mapping[int, Bounds]) -> Bounds:
    """The least-squares slope of one seed, between the least and the most that the bounds of its ED50s allow."""
    x = np.log(list(found))
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    ends = [
        (w * low, w * high) if w > 0 else (w * high, w * low) for w, (low, high) in zip(weights, found.values()) if w
    ]
    return sum(low for low, _ in ends), sum(high for _, high in ends)


def _local_and_fit(by_seed: Mapping[int, Mapping[int, Bounds]], sizes: list[int]) -> tuple[tuple[float, ...], float]:
    """Exponents between neighbouring sizes, and the p value of a straight line against a mean of its own for each size.

    Each seed has a level and a slope of its own in both. nan where fewer than three sizes leave nothing to test.
    """
    rows = [(seed, size, (low + high) / 2) for seed, found in by_seed.items()
            for size, (low, high) in found.items() if low > -inf and high < inf]  # fmt: skip
    at = {(seed, size): value for seed, size, value in rows}
    local = []
    for a, b in pairwise(sizes):
        steps = [at[seed, b] - at[seed, a] for seed in by_seed if (seed, a) in at and (seed, b) in at]
        local.append(float(np.mean(steps)) / log(b / a) if steps else nan)
    whole = [seed for seed in by_seed if all((seed, size) in at for size in sizes)]
    if len(sizes) < 3 or len(whole) < 2:
        return tuple(local), nan
    y, x = np.array([[at[seed, size] for size in sizes] for seed in whole]), np.log(sizes)
    fits = np.polynomial.polynomial.polyfit(x, y.T, 1)
    off = y - np.polynomial.polynomial.polyval(x, fits)  # (seeds, sizes): from each seed's own line
    shared, degrees = len(whole) * (off.mean(axis=0) ** 2).sum(), len(sizes) - 2
    rest = ((off - off.mean(axis=0)) ** 2).sum()
    ratio = (shared / degrees) / max(rest / (degrees * (len(whole) - 1)), READING**2)
    return tuple(local), float(stats.f.sf(ratio, degrees, degrees * (len(whole) - 1)))
