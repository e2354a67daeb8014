"""Is one defense better than another? Paired tests over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from harness.report.estimates import FEWEST


def paired_t_test(cells: pd.DataFrame, better: str, worse: str, metric: str = "asr") -> float:
    """The one-sided p value of "`better` has a lower metric than `worse`", from a paired t test over seeds.

    cells: of one task and attack, one row per cell (see harness.report.cells). Every seed gives one difference, the
    mean over the doses above 0 that both were run at: test items and doses of a seed are not independent. Their
    variance is at least what finite test sets alone would give, so that differences that happen to be equal prove
    nothing. nan for fewer than three seeds.
    """
    done = cells[(cells.status == "done") & (cells.dose > 0) & cells.defense.isin([better, worse])]
    sizes = done[f"{metric}_n"] if f"{metric}_n" in done else pd.Series(1.0, done.index)
    # The binomial variance of one cell, of a share with one success and one failure added (never 0).
    share = (done[metric] * sizes + 1) / (sizes + 2)
    done = done.assign(variance=share * (1 - share) / sizes.clip(lower=1))
    values = done.pivot_table(index=["seed", "dose"], columns="defense", values=[metric, "variance"], observed=True)
    if not {(metric, better), (metric, worse)} <= set(values.columns):
        return float("nan")
    values = values.dropna()
    differences = (values[metric][better] - values[metric][worse]).groupby("seed").mean()
    n = len(differences)
    if n < FEWEST:  # of two, no spread can be told
        return float("nan")
    per_seed = (values["variance"][better] + values["variance"][worse]).groupby("seed")
    binomial = float((per_seed.sum() / per_seed.count() ** 2).mean())
    variance = max(float(differences.var(ddof=1)), binomial)
    return float(stats.t.cdf(differences.mean() / (variance / n) ** 0.5, n - 1))


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p values (N,) adjusted for N comparisons (Holm 1979); nan stays nan and does not count."""
    adjusted = np.array(p, dtype=float)
    known = np.flatnonzero(~np.isnan(adjusted))
    order = known[adjusted[known].argsort(kind="stable")]
    stepped = adjusted[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted


def clean_change(cells: pd.DataFrame, defense: str, base: str = "none") -> tuple[float, float]:
    """How far a defense's clean metric is from that of another, paired by attack, dose and seed; and that of the other.

    At dose 0 where both were run there; elsewhere the poison itself may cost an undefended victim something. nan where
    no cell of both is done.
    """
    done = cells[(cells.status == "done") & cells.utility.notna()]
    where = ["attack", "dose", "seed"]
    both = done[done.defense == defense].merge(done[done.defense == base], on=where, suffixes=("", "_base"))
    if (both.dose == 0).any():
        both = both[both.dose == 0]
    return float((both.utility - both.utility_base).mean()), float(both.utility_base.mean())
