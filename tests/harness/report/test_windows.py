"""The stealth window against doses that are known, and false alarms of other kinds of clean models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import plugin_columns

from harness.report.windows import false_alarms_frame, false_alarms_table, windows_frame, windows_table

DOSES = (0, 4, 8, 16, 32, 64, 128)


def rise(dose: float, middle: float) -> float:
    return 0.0 if not dose else 1 / (1 + (middle / dose) ** 4)


def make_cells(
    planted: float, found: float, seeds: int = 3, clean: int = 3, task: str = "t", models: bool = False
) -> pd.DataFrame:
    """Cells of `none` and a detector "d"; ASR is half at `planted`, half of the poison or models is seen at `found`."""
    rng = np.random.default_rng(0)
    rows = []
    for defense, stage in (("none", "control"), ("d", "inspection" if models else "filtering")):
        for seed in range(max(seeds, clean)):
            shift = float(np.exp(rng.normal(0, 0.2)))
            for dose in DOSES if seed < seeds else (0,):
                row = plugin_columns(task=task, attack="a", defense=defense) | {
                    "task_name": "t", "stage": stage, "dose": dose, "seed": seed, "status": "done",
                    "asr": rise(dose, planted * shift), "asr_floor": 0.0, "asr_n": 100,
                }  # fmt: skip
                if defense == "d" and models:
                    row["model_suspicion"] = rng.uniform() + 5 * (dose > found * shift)
                elif defense == "d" and dose:
                    row["train_tpr_at_1"] = rise(dose, found * shift)
                rows.append(row)
    return pd.DataFrame(rows)


def test_the_window_of_a_filter_is_the_ratio_of_two_doses() -> None:
    (row,) = windows_frame(make_cells(8, 32)).to_dict("records")
    assert row["kind"] == "rows"
    assert row["planted"] == pytest.approx(8, rel=0.4)
    assert row["found"] == pytest.approx(32, rel=0.4)
    assert row["window"] == pytest.approx(4, rel=0.4)
    assert "to" in row["window_text"]
    assert windows_table(pd.DataFrame([row])).row_count == 1


def test_a_filter_that_sees_poison_before_it_works_has_a_window_below_one() -> None:
    (row,) = windows_frame(make_cells(32, 8)).to_dict("records")
    assert row["window"] == pytest.approx(0.25, rel=0.4)


def test_what_is_never_found_is_a_bound() -> None:
    (row,) = windows_frame(make_cells(8, 1e5)).to_dict("records")
    assert row["found_text"].startswith("> ")
    assert row["window_text"].startswith("> ")


def test_the_window_of_a_detector_of_models_is_over_models() -> None:
    (row,) = windows_frame(make_cells(8, 32, seeds=12, clean=24, models=True)).to_dict("records")
    assert (row["kind"], row["seeds"]) == ("models", 12)
    assert row["planted"] == pytest.approx(8, rel=0.3)
    assert 16 < row["found"] < 64, "a model is called from one of these doses on"
    assert 2 < row["window"] < 8


def test_models_that_are_all_found_between_the_same_doses_are_not_known_better_than_that() -> None:
    cells = make_cells(8, 11, seeds=8, clean=24, models=True)
    (row,) = windows_frame(cells[cells.dose.isin([0, 4, 8, 32])]).to_dict("records")
    assert row["found_low"] < 0.95 * row["found"] < row["found_high"] / 1.05


def test_too_few_clean_models_carry_no_threshold() -> None:
    assert windows_frame(make_cells(8, 32, seeds=12, clean=12, models=True)).empty


def test_one_dose_is_no_axis() -> None:
    cells = make_cells(8, 32)
    assert windows_frame(cells[cells.dose.isin([0, 8])]).empty


def test_false_alarms_of_another_kind_at_the_usual_threshold() -> None:
    usual, weak = make_cells(8, 32, clean=24, models=True), make_cells(8, 32, clean=8, task="t(epochs=1)", models=True)
    weak.loc[(weak.dose == 0) & (weak.seed < 2), "model_suspicion"] += 9
    frame = false_alarms_frame(pd.concat([usual, weak]))
    (row,) = frame.to_dict("records")
    assert (row["task"], row["kind"], row["models"], row["called"]) == ("t", "t(epochs=1)", 8, 2)
    assert row["low"] < row["share"] == 0.25 < row["high"] < 0.7
    assert false_alarms_table(frame).row_count == 1
    assert false_alarms_frame(weak).empty, "of eight models there is no threshold at 5 %"
