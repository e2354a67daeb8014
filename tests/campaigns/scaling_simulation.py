"""Do the intervals of scaling exponents and of targeted trials hold the truth, and are their verdicts right?

Simulated experiments, counted by `harness.report.scaling` and `harness.report.trials`. It writes exponents.csv and
trials.csv; the published ones are in results/statistics.

PYTHONPATH=. python tests/campaigns/scaling_simulation.py results/statistics --experiments 100
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from typing import Any

import numpy as np
import pandas as pd
from coverage_simulation import CEILING, write_tables
from scipy.special import expit, logit

from harness.report.dose_response import Curve, Hill, Unsupported
from harness.report.scaling import Exponent, scaling_exponent
from harness.report.trials import estimate_share

SIZES = (500, 1_000, 2_000, 4_000, 8_000)
STEPS = tuple(round(2 ** (i / 2)) for i in range(0, 19))  # doses in steps of the root of two, from 1 to 512
FLOOR, ITEMS, SLOPE = 0.05, 900, 3.0
TRIAL_DOSES = (1, 2, 5, 10, 25)


def simulate_scaling(
    rng: np.random.Generator, exponent: float, *, seeds: int, spread: float = 0.3, tilt: float = 0.0, bend: float = 0.0,
    doses: tuple[int, ...] = (0, *sorted(set(STEPS))), middle: float = 12.0,
) -> dict[tuple[int, int], Curve]:  # fmt: skip
    """Curves by (size, seed) of an attack whose ED50 grows as size to the power of `exponent`.

    spread: of log ED50 over trainings; tilt: of the exponent over seeds; bend: of log ED50 over sizes, the same for all
    seeds, so that no power law holds. middle: the ED50 at the middle of the sizes.
    """
    at, curves = np.array(doses, float), {}
    bends = rng.normal(0, bend, len(SIZES))
    centre = np.log(SIZES).mean()
    for seed in range(seeds):
        own = exponent + rng.normal(0, tilt)
        for size, off in zip(SIZES, bends):
            level = log(middle) + own * (log(size) - centre) + off + rng.normal(0, spread)
            p = Hill(FLOOR, CEILING, level, SLOPE).asr(at)
            asr = rng.binomial(ITEMS, expit(logit(p) + rng.normal(0, 0.3, len(p)))) / ITEMS
            curves[size, seed] = Curve(at, asr, float(asr[0]))
    return curves


def simulate_trials(rng: np.random.Generator, middle: float, *, trials: int, slope: float) -> dict[int, Curve]:
    """One answer, 0 or 1, per trial and dose: the wanted one with a probability that rises with the log dose."""
    at = np.array((0, *TRIAL_DOSES), float)
    p = expit(slope * (np.log(TRIAL_DOSES) - log(middle)))
    return {trial: Curve(at, np.concatenate([[0.0], rng.binomial(1, p)]), 0.0) for trial in range(trials)}


def scaling_row(experiments: int, exponent: float, seeds: int, **setting: Any) -> dict[str, Any]:
    """How often the interval of the exponent holds the truth, how wide it is, and what is said of it."""
    rng = np.random.default_rng(seeds)
    found: list[Exponent] = [
        scaling_exponent(simulate_scaling(rng, exponent, seeds=seeds, **setting)) for _ in range(experiments)
    ]
    given = [e for e in found if e.low == e.low]
    verdicts = pd.Series([e.verdict for e in found])
    return {
        "setting": ", ".join(f"{k} {v if k != 'doses' else 'few'}" for k, v in setting.items()) or "as usual",
        "exponent": exponent,
        "seeds": seeds,
        "coverage": float(np.mean([e.low <= exponent <= e.high for e in given])) if given else np.nan,
        "width": float(np.median([e.high - e.low for e in given])) if given else np.nan,
        "bias": float(np.median([e.value for e in given])) - exponent if given else np.nan,
        "given": len(given) / experiments,
        "says_number": float(verdicts.str.startswith("a number").mean()),
        "says_grows": float((verdicts == "grows with the size").mean()),
        "says_no_power_law": float((verdicts == "no power law").mean()),
    }


def trials_row(experiments: int, trials: int, slope: float, share: float) -> dict[str, Any]:
    """How often the interval of the dose at which `share` of the trials succeed holds the truth."""
    rng, hits, widths, bounds = np.random.default_rng(trials), [], [], []
    for _ in range(experiments):
        middle = float(np.exp(rng.uniform(log(2), log(8))))
        truth = middle * np.exp(logit(share) / slope)
        try:
            got = estimate_share(simulate_trials(rng, middle, trials=trials, slope=slope), share)
        except Unsupported:
            continue
        if got.censored:
            bounds.append(got.low <= truth <= got.high)
        elif got.low == got.low:
            hits.append(got.low <= truth <= got.high)
            widths.append(got.high / got.low)
    return {
        "trials": trials, "slope": slope, "share": share, "coverage": float(np.mean(hits)) if hits else np.nan,
        "width": float(np.median(widths)) if widths else np.nan, "given": len(hits) / experiments,
        "bounds": len(bounds) / experiments, "bounds_true": float(np.mean(bounds)) if bounds else np.nan,
    }  # fmt: skip


def scaling_rows(experiments: int) -> Iterator[dict[str, Any]]:
    few = (0, 5, 10, 20, 50, 100)
    settings: tuple[dict[str, Any], ...] = (
        {}, {"spread": 0.15}, {"tilt": 0.1}, {"bend": 0.25}, {"doses": few}, {"middle": 1.5},
    )  # fmt: skip
    for setting in settings:
        for exponent in (0.0, 0.2, 1.0) if not setting else (0.0,):
            for seeds in (3, 5, 10):
                yield scaling_row(experiments, exponent, seeds, **setting)


def trials_rows(experiments: int) -> Iterator[dict[str, Any]]:
    for slope in (1.0, 2.0, 4.0):
        for trials in (10, 20, 40):
            for share in (0.5, 0.9):
                yield trials_row(experiments, trials, slope, share)


if __name__ == "__main__":
    write_tables(__doc__ or "", exponents=scaling_rows, trials=trials_rows)
