"""Detectors of models and rows: numbers against brute force, and none that means nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import plugin_columns

from harness.report.detection import auroc_interval, calibrate, detection_frame, detection_table, judge_models


def make_cells(clean: list[float], poisoned: list[float], **more: object) -> pd.DataFrame:
    """Cells of a detector at dose 0 and 10, of an attack that works."""
    return pd.DataFrame([
        {**plugin_columns(task="t", attack="a", defense=defense), "stage": stage, "dose": dose, "seed": seed,
         "status": "done", "asr": float(dose > 0), "model_suspicion": value if defense == "d" else np.nan, **more}
        for defense, stage in (("none", "control"), ("d", "inspection"))
        for dose, values in ((0, clean), (10, poisoned)) for seed, value in enumerate(values)
    ])  # fmt: skip


def test_models_of_dose_0_are_the_clean_ones() -> None:
    row = detection_frame(make_cells([1, 2, 3, 4], [3.5, 9, 8])).iloc[0]
    assert (row.kind, row.clean, row.poisoned, row.dose, row.asr) == ("models", 4, 3, 10, 1)
    assert row.auroc == pytest.approx((3 + 4 + 4) / 12)
    assert row.auroc_low < row.auroc < row.auroc_high
    assert "tpr_at_5" not in detection_frame(make_cells([1, 2, 3, 4], [3.5, 9])), "of four models there is no 5 %"
    assert detection_table(detection_frame(make_cells([1, 2], [3, 4]))).row_count == 1


def test_a_seed_that_ran_under_two_attacks_is_one_clean_model() -> None:
    both = pd.concat([make_cells([1, 2, 3], [9, 9, 9]), make_cells([1, 2, 3], [8, 8, 8]).assign(attack="b")])
    assert list(detection_frame(both).clean) == [3, 3]


def test_a_threshold_lets_one_in_twenty_clean_models_pass() -> None:
    clean = np.arange(40.0)  # of 40 models two may be called poisoned
    assert judge_models(clean, np.array([37.0, 37.5, 100.0, 0.0]))["tpr_at_5"] == 0.5
    assert "tpr_at_1" not in judge_models(clean, clean)


def test_the_interval_of_an_auroc_covers() -> None:
    rng = np.random.default_rng(0)
    from scipy.stats import norm
    from sklearn.metrics import roc_auc_score

    for shift in (0.0, 1.2, 2.5):
        true, hits = norm.cdf(shift / 2**0.5), 0
        for _ in range(200):
            clean, poisoned = rng.normal(size=15), rng.normal(shift, size=15)
            low, high = auroc_interval(roc_auc_score([0] * 15 + [1] * 15, [*clean, *poisoned]), 15, 15)
            hits += low <= true <= high
        assert 0.91 <= hits / 200 <= 0.995, (shift, hits / 200)
    low, high = auroc_interval(1.0, 8, 8)
    assert 0.6 < low < 0.95
    assert high == 1
    assert auroc_interval(0.0, 8, 8) == pytest.approx((0, 1 - low))


def test_a_calibrated_probability_is_judged_on_models_it_was_not_fitted_to() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 20)
    useless, useful = calibrate(rng.normal(size=40), truth), calibrate(truth + 0.2 * rng.normal(size=40), truth)
    assert useful["brier"] < 0.05
    assert useless["brier"] > 0.2
    assert useful["cross_entropy"] < 0.2 < 0.6 < useless["cross_entropy"]


def test_filters_are_means_over_seeds() -> None:
    cells = make_cells([0, 0], [0, 0]).drop(columns="model_suspicion").assign(train_auroc=0.8, train_tpr_at_1=0.3)
    row = detection_frame(cells).iloc[0]
    assert (row.kind, row.auroc, row.tpr_at_1, row.poisoned) == ("rows", pytest.approx(0.8), pytest.approx(0.3), 2)
