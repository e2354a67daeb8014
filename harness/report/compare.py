"""Is one defense better than another? Paired tests over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats


def paired(cells: pd.DataFrame, better: str, worse: str, metric: str = "asr") -> float:
    """One-sided p of "`better` has the lower metric than `worse`": a paired t test whose pairs are the seeds.

    cells: of one task and attack, one row per cell (see harness.report.cells). Every seed gives one difference, the
    mean over the doses above 0 that both were run at: test items and doses of a seed are not independent. nan below
    two seeds; differences that are all alike decide for themselves.
    """
    done = cells[(cells.status == "done") & (cells.dose > 0)]
    values = done.pivot_table(index=["seed", "dose"], columns="defense", values=metric, observed=True)
    if not {better, worse} <= set(values.columns):
        return float("nan")
    apart = (values[better] - values[worse]).dropna().groupby("seed").mean()
    if len(apart) < 2:
        return float("nan")
    if np.ptp(apart) < 1e-12:
        return 0.0 if apart.iloc[0] < 0 else 1.0
    return float(stats.ttest_1samp(apart, 0, alternative="less").pvalue)


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p values (N,) corrected for N comparisons (Holm 1979); nan stays nan and does not count."""
    out = np.array(p, dtype=float)
    known = np.flatnonzero(~np.isnan(out))
    order = known[out[known].argsort(kind="stable")]
    stepped = out[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return out
