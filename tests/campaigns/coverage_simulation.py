"""Does the interval of ED50 hold the truth 95 times in 100, and does an attack that does nothing get one?

Simulated experiments, the statistics of `harness.report` against older ways of counting them. It writes coverage.csv
and false_ed50.csv; the published ones are in results/statistics.

PYTHONPATH=. python tests/campaigns/coverage_simulation.py results/statistics --experiments 100
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from math import exp, inf, log
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from harness.report.dose_response import Curve, Hill, Unsupported, choose_doses, effective_dose, estimate_ed, protection
from harness.report.estimates import DoseEstimate

DOSES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
CEILING = 0.97
Curves = Mapping[int, Curve]
Method = Callable[[Curves], DoseEstimate]


@dataclass(frozen=True)
class Coverage:
    """Of experiments whose truth is known: what share got an interval (`given`), and what those intervals are like."""

    coverage: float
    width: float  # median of high / low
    wide: float  # its 90th percentile
    bias: float  # median of estimate / truth
    given: float
    bounds: float  # the share of experiments that gave a bound
    bounds_true: float  # and of these, those whose bound is true


def grouped_mean(curves: Curves) -> DoseEstimate:
    """What was done before: each seed's own highest ASR, then the t interval over log doses, open ends at the doses."""
    bounds = np.array([effective_dose(Curve(c.doses, c.asr, c.chance)) for c in curves.values()])
    beyond = np.isinf(bounds[:, 1]).mean()
    if beyond > 0.5:
        end = exp(float(np.median(bounds[:, 0])))
        return DoseEstimate(end, end, inf, ">", len(bounds))
    if np.isinf(bounds[:, 0]).mean() > 0.5:
        end = exp(float(np.median(bounds[:, 1])))
        return DoseEstimate(end, 0, end, "<", len(bounds))
    doses = next(iter(curves.values())).doses
    middle = bounds.clip(log(doses[1]), log(doses[-1])).mean(axis=1)
    half = stats.t.ppf(0.975, len(middle) - 1) * stats.sem(middle)
    return DoseEstimate(*np.exp([middle.mean(), middle.mean() - half, middle.mean() + half]), "", len(middle))


def chosen_on_others(curves: Curves) -> DoseEstimate:
    return estimate_ed(choose_doses(curves))


def experiment(
    rng: np.random.Generator, middle: float | None, *, seeds: int, floor: float, slope: float, spread: float,
    noise: float, items: int, doses: tuple[int, ...], never: float, factor: float = 1.0,
) -> tuple[dict[int, Curve], dict[int, Curve]]:  # fmt: skip
    """Curves of every seed, undefended and behind a defense that needs `factor` times the dose.

    middle: the log dose of the curve's middle; None is an attack that does nothing. A seed's middle differs by
    `spread`; every point is a training of its own (`noise` on the logit), scored on `items` inputs, and the floor is
    that of the undefended training without poison. never: the share of seeds at which the attack never fires.
    """
    at = np.array(doses, float)
    plain, guarded = {}, {}
    for seed in range(seeds):
        own = None if middle is None or rng.random() < never else rng.normal(middle, spread)
        for curves, times in ((plain, 1.0), (guarded, factor)):
            p = np.full(len(at), floor) if own is None else Hill(floor, CEILING, own + log(times), slope).asr(at)
            logit = np.log(p / (1 - p)) + rng.normal(0, noise, len(p))
            asr = rng.binomial(items, 1 / (1 + np.exp(-logit))) / items
            curves[seed] = Curve(at, asr, float(plain[seed].asr[0] if curves is guarded else asr[0]))
    return plain, guarded


def covered(
    experiments: int, seeds: int = 3, floor: float = 0.05, slope: float = 3.0, spread: float = 0.3, noise: float = 0.3,
    items: int = 900, doses: tuple[int, ...] = DOSES, never: float = 0.0, factor: float = 1.0,
    between: tuple[float, float] = (8, 40), method: Method = chosen_on_others,
) -> Coverage:  # fmt: skip
    """How often and how tightly the true ED50 is held; with `factor`, the true protection factor.

    between: where the true middle lies; as it stands, so that an ED50 can be seen.
    """
    rng, found, bounds = np.random.default_rng(seeds), [], []
    for _ in range(experiments):
        middle = rng.uniform(*np.log(between))
        plain, guarded = experiment(
            rng, middle, seeds=seeds, floor=floor, slope=slope, spread=spread, noise=noise, items=items, doses=doses,
            never=never, factor=factor,
        )  # fmt: skip
        truth = exp(Hill(floor, CEILING, middle, slope).crossing(floor + 0.5 * (1 - floor)))
        try:
            if factor == 1:
                estimate = method(plain)
            else:
                estimate, truth = protection(choose_doses(guarded), choose_doses(plain)), factor
        except Unsupported:
            continue
        if estimate.censored:
            bounds.append(estimate.low <= truth <= estimate.high)
        elif estimate.low == estimate.low:
            found.append((estimate.low <= truth <= estimate.high, estimate.high / estimate.low, estimate.value / truth))
    hits, widths, biases = np.array(found or [(np.nan,) * 3], float).T
    return Coverage(
        float(hits.mean()), float(np.median(widths)), float(np.quantile(widths, 0.9)), float(np.median(biases)),
        len(found) / experiments, len(bounds) / experiments, float(np.mean(bounds)) if bounds else np.nan,
    )  # fmt: skip


def false_rate(
    experiments: int, seeds: int, floor: float, noise: float, items: int = 900, method: Method = chosen_on_others
) -> float:
    """The share of experiments in which an attack that does nothing gets an ED50."""
    rng, wrong = np.random.default_rng(seeds), 0
    for _ in range(experiments):
        curves, _ = experiment(rng, None, seeds=seeds, floor=floor, slope=1, spread=0, noise=noise, items=items,
                               doses=DOSES, never=0)  # fmt: skip
        try:
            estimate = method(curves)
        except Unsupported:
            continue
        wrong += estimate.censored != ">" and estimate.value == estimate.value
    return wrong / experiments


SETTINGS: tuple[dict[str, Any], ...] = (
    {}, {"spread": 0.8}, {"slope": 1.2, "noise": 0.8}, {"floor": 0.3, "slope": 2.0}, {"floor": 0.6, "noise": 0.55},
    {"between": (200, 1500)}, {"between": (0.3, 2)},
    {"doses": (0, 10, 50), "items": 30}, {"never": 0.2}, {"factor": 2.0}, {"factor": 5.0},
)  # fmt: skip
METHODS: Mapping[str, Method] = {"now": chosen_on_others, "before": grouped_mean}


def coverage_rows(experiments: int) -> Iterator[dict[str, Any]]:
    for setting in SETTINGS:
        said = ", ".join(f"{name} {value}" for name, value in setting.items()) or "as usual"
        for seeds in (3, 5):
            for name, method in METHODS.items():
                if name == "now" or "factor" not in setting:
                    row = covered(experiments, seeds=seeds, method=method, **setting)
                    yield {"setting": said, "seeds": seeds, "method": name, **asdict(row)}


def false_rows(experiments: int) -> Iterator[dict[str, Any]]:
    for floor in (0.05, 0.3, 0.6):
        for noise in (0.3, 0.55, 0.8):
            for seeds in (3, 5):
                rates = {name: false_rate(experiments, seeds, floor, noise, method=m) for name, m in METHODS.items()}
                yield {"floor": floor, "noise": noise, "seeds": seeds, **rates}


def write_tables(about: str, **tables: Callable[[int], Iterator[dict[str, Any]]]) -> None:
    """Write <name>.csv for the rows of every table into the folder that the command line names, and print them."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the two tables are written")
    parser.add_argument("--experiments", type=int, default=100, help="simulated experiments per line (default: 100)")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        frame = pd.DataFrame(rows(given.experiments))
        frame.to_csv(given.folder / f"{name}.csv", index=False, float_format="%.3g", lineterminator="\n")
        print(frame.to_string(index=False), flush=True)


if __name__ == "__main__":
    write_tables(__doc__ or "", coverage=coverage_rows, false_ed50=false_rows)
