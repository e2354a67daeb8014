"""Does the interval of ED50 hold the truth 95 times in 100? Simulated experiments; run as a script for the full count.

PYTHONPATH=. python tests/campaigns/coverage_simulation.py 500
"""

from __future__ import annotations

import sys

import numpy as np

from harness.report import censored
from harness.report.dose_response import Curve, Hill, effective_dose

DOSES = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200, 500.0])
FLOOR, CEILING, TEST_ROWS = 0.05, 0.95, 900
BETWEEN_TRAININGS = 0.3  # standard deviation of the logit of ASR from one dose's training to the next


def covered(experiments: int, seeds: int, slope: float, spread: float) -> tuple[float, float]:
    """Share of experiments whose interval holds the true ED50, and the median ratio of the interval's ends.

    Every seed's curve has a middle of its own (normal on log doses, standard deviation `spread`); every point is a
    training of its own, scored on a binomial test set. The experiment's ED50 lies between 5 and 80.
    """
    rng, hits, widths = np.random.default_rng(seeds), 0, []
    for _ in range(experiments):
        middle = rng.uniform(np.log(5), np.log(80))
        bounds = []
        for _ in range(seeds):
            p = Hill(FLOOR, CEILING, rng.normal(middle, spread), slope).asr(DOSES)
            logit = np.log(p / (1 - p)) + rng.normal(0, BETWEEN_TRAININGS, len(p))
            asr = rng.binomial(TEST_ROWS, 1 / (1 + np.exp(-logit))) / TEST_ROWS
            bounds.append(effective_dose(Curve(DOSES, asr, FLOOR)))
        low, high = np.array(bounds).T
        found = censored.mean(low, high)
        truth = Hill(FLOOR, CEILING, middle, slope).crossing(FLOOR + 0.5 * (1 - FLOOR))
        hits += found.low <= truth <= found.high
        widths.append(found.high - found.low)
    return hits / experiments, float(np.exp(np.median(widths)))


if __name__ == "__main__":
    experiments = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print("slope  spread between seeds  seeds  coverage  interval, high / low")
    for slope in (1.5, 3, 8):
        for spread in (0.15, 0.4):
            for seeds in (3, 5, 10):
                share, width = covered(experiments, seeds, slope, spread)
                print(f"{slope:5}  {spread:20}  {seeds:5}  {share:8.3f}  {width:6.2f}", flush=True)
