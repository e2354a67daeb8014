"""Is one defense better than another? Paired tests over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats


def paired_t_test(cells: pd.DataFrame, better: str, worse: str, metric: str = "asr") -> float:
    """The one-sided p value of "`better` has a lower metric than `worse`", from a paired t test over seeds.

    cells: of one task and attack, one row per cell (see harness.report.cells). Every seed gives one difference, the
    mean over the doses above 0 that both were run at: test items and doses of a seed are not independent. nan for
    fewer than two seeds; 0 or 1 where all differences are the same.
    """
    done = cells[(cells.status == "done") & (cells.dose > 0)]
    values = done.pivot_table(index=["seed", "dose"], columns="defense", values=metric, observed=True)
    if not {better, worse} <= set(values.columns):
        return float("nan")
    differences = (values[better] - values[worse]).dropna().groupby("seed").mean()
    if len(differences) < 2:
        return float("nan")
    if np.ptp(differences) < 1e-12:
        return 0.0 if differences.iloc[0] < 0 else 1.0
    return float(stats.ttest_1samp(differences, 0, alternative="less").pvalue)


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p values (N,) adjusted for N comparisons (Holm 1979); nan stays nan and does not count."""
    adjusted = np.array(p, dtype=float)
    known = np.flatnonzero(~np.isnan(adjusted))
    order = known[adjusted[known].argsort(kind="stable")]
    stepped = adjusted[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted
