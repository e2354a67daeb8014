"""What a table says of a dose or a ratio: an interval where the seeds carry one, else no more than was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log, nan
from statistics import median

import numpy as np

from harness.console import format_count
from harness.report import censored

Bounds = tuple[float, float]  # of a log dose or a log ratio
FEWEST = 3  # seeds for an interval: of two, what was seen is said
APART = 5 * censored.USUAL_SPREAD  # a gap between seeds that no usual spread explains: a factor of four
ROOM = log(10)  # an interval may be this wide, or as wide as the doses


@dataclass(frozen=True)
class DoseEstimate:
    """A dose or a ratio over seeds. `str` is what tables show.

    low, high: its 95 % interval; nan where the seeds carry none. censored: "<" or ">" where `value` is only a bound,
    itself the end of a 95 % interval. words: what is shown in the place of an interval. p: two-sided, of a ratio of 1,
    from the same engine as the interval. value is nan where nothing can be said.
    """

    value: float
    low: float
    high: float
    censored: str
    seeds: int
    words: str = ""
    p: float = nan

    def __str__(self) -> str:
        if self.words:
            return self.words
        if self.value != self.value:
            return "-"
        if self.censored:
            return f"{'> ' if self.censored == '>' else '<= '}{format_dose(self.value)}"
        return f"{format_dose(self.value)} ({format_dose(self.low)} to {format_dose(self.high)})"


def format_dose(value: float) -> str:
    """Two digits, or all that stand before the point."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"


def estimate(bounds: Sequence[Bounds], doses: float) -> DoseEstimate:
    """The mean over seeds of a log dose or log ratio of which every seed has bounds.

    doses: log of the largest dose over the smallest: an interval wider than that, and than a factor of ten, determines
    nothing and is not shown. Seeds that fall into two groups (some never fire, the others agree; some open below and
    some above) have no mean: the median seed is shown, and how many never fired. Where most seeds are open on one side,
    the bound is the end of a 95 % interval.
    """
    known = [(low, high) for low, high in bounds if low > -inf or high < inf]
    n = len(known)
    if not n:
        return DoseEstimate(nan, nan, nan, "", 0, f"not determined by {format_count(len(bounds), 'seed')}")
    above = sorted(low for low, high in known if high == inf)
    below = sorted(high for low, high in known if low == -inf)
    if n < FEWEST:
        return _seen(known, above, below)
    if split := _in_two_groups(known, above, below):
        return split
    if 2 * len(above) > n:
        return _bound(np.array(above), n, ">")
    if 2 * len(below) > n:
        return _bound(-np.array(below), n, "<")
    if len(above) + len(below) == n:
        return DoseEstimate(nan, nan, nan, "", n, _undetermined(n))
    low, high = np.array(known).T
    found = censored.mean_of(low, high)
    if found.interval.high - found.interval.low > max(doses, ROOM):
        return DoseEstimate(nan, nan, nan, "", n, _undetermined(n))
    low_end, high_end = map(exp, found.interval)
    return DoseEstimate(exp(found.value), low_end, high_end, "", n, p=found.p_zero())


def _undetermined(seeds: int) -> str:
    return f"not determined by {format_count(seeds, 'seed')}"


def _bound(bounds: censored.Array, seeds: int, side: str) -> DoseEstimate:
    """The 95 % bound where most seeds are open. bounds: of those that are, signs turned for bounds from above."""
    limit = censored.lower_limit(bounds, seeds)
    p = min(1.0, 2 * censored.p_beyond(bounds, seeds, 0.0))
    if side == ">":
        return DoseEstimate(exp(limit), exp(limit), inf, side, seeds, p=p)
    return DoseEstimate(exp(-limit), 0.0, exp(-limit), side, seeds, p=p)


def _seen(known: list[Bounds], above: list[float], below: list[float]) -> DoseEstimate:
    """What one or two seeds have shown, without an interval."""
    n, low, high = len(known), min(low for low, _ in known), max(high for _, high in known)
    if len(above) == n:
        first = last = f"> {format_dose(exp(above[0]))}"
    elif len(below) == n:
        first = last = f"<= {format_dose(exp(below[-1]))}"
    else:
        first = format_dose(exp(low)) if low > -inf else f"<= {format_dose(exp(below[0]))}"
        last = format_dose(exp(high)) if high < inf else f"> {format_dose(exp(above[-1]))}"
    words = f"{first if first == last else f'{first} to {last}'} ({format_count(n, 'seed')})"
    if len(above) == n:
        return DoseEstimate(exp(above[0]), nan, nan, ">", n, words)
    if len(below) == n:
        return DoseEstimate(exp(below[-1]), nan, nan, "<", n, words)
    value = nan if above or below else exp(float(np.mean(known)))
    return DoseEstimate(value, nan, nan, "", n, words)


def _in_two_groups(known: list[Bounds], above: list[float], below: list[float]) -> DoseEstimate | None:
    """The median seed, where seeds that are open on one side lie APART from all others; None where they do not."""
    n, closed = len(known), [(low, high) for low, high in known if low > -inf and high < inf]
    others = [high for _, high in closed] + below
    never = len(above) if above and others and above[0] - max(others) > APART else 0
    others = [low for low, _ in closed] + above
    at_once = len(below) if below and others and min(others) - below[-1] > APART else 0
    if not (never or at_once):
        return None
    said = [f"never in {never} of {n}"] * bool(never) + [f"at once in {at_once} of {n}"] * bool(at_once)
    order = sorted(_middle(bounds) for bounds in known)
    value = order[n // 2] if n % 2 else nan if order[n // 2] == inf or order[n // 2 - 1] == -inf else median(order)
    if abs(value) == inf or value != value:  # the median seed is among those that never fire, or fire at once
        rest = sorted(_middle(bounds) for bounds in closed)
        if rest:
            said.append(f"else {format_dose(exp(median(rest)))}")
        return DoseEstimate(nan, nan, nan, "", n, "; ".join(said))
    return DoseEstimate(exp(value), nan, nan, "", n, f"{format_dose(exp(value))} ({'; '.join(said)})")


def _middle(bounds: Bounds) -> float:
    low, high = bounds
    return (low + high) / 2 if low > -inf and high < inf else inf if high == inf else -inf
