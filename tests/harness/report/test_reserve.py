"""What stands beside an ED50: how far the poison is from clean rows, and whether the clean rows alone do as well."""

from __future__ import annotations

import pandas as pd
import pytest
from helpers import plugin_columns

from harness.report.doses import beats_reserve, dose_frame, tighten
from harness.report.estimates import DoseEstimate
from harness.report.summary import summary_frame


def make_cells(utility: dict[str, float], metric: str = "accuracy") -> pd.DataFrame:
    """Cells of an attack that works from dose 10 on, but not where the training set was thrown away."""
    return pd.DataFrame([
        {**plugin_columns(task="t", attack="a", defense=defense), "stage": "x", "dose": dose, "seed": seed,
         "status": "done", "reason": "", "asr": float(dose >= 10 and defense != "reserve_only"), "asr_floor": 0.0,
         "asr_n": 90, "utility": value, "utility_n": 100, "clean_metric": metric, "train_size": 500,
         "snr": 20.2 if dose else None, "edit_distance": None}
        for defense, value in utility.items() for dose in (0, 5, 20) for seed in range(3)
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "mine", "better"),
    [("accuracy", 0.90, False), ("accuracy", 0.96, True), ("perplexity", 0.90, True), ("perplexity", 0.96, False)],
)
def test_a_defense_is_compared_with_a_victim_of_the_clean_rows_alone(metric: str, mine: float, better: bool) -> None:
    frame = make_cells({"none": 0.98, "mine": mine, "reserve_only": 0.95}, metric)
    assert beats_reserve(frame, "mine") == better
    found = dose_frame(frame, summary_frame(frame)).set_index("defense")
    assert found.note["mine"] == ("" if better else "no better on clean data than reserve_only")
    assert found.note["none"] == ""


def test_without_that_control_nothing_is_said() -> None:
    frame = make_cells({"none": 0.98, "mine": 0.5})
    assert list(dose_frame(frame, summary_frame(frame)).note) == ["", ""]


def test_fidelity_is_that_of_poisoned_rows() -> None:
    frame = make_cells({"none": 0.98})
    assert list(dose_frame(frame, summary_frame(frame)).fidelity) == ["SNR 20 dB"]
    same = frame.assign(snr=frame.snr.where(frame.snr.isna(), 100.0))
    assert list(dose_frame(same, summary_frame(frame)).fidelity) == ["input unchanged"]
    assert list(dose_frame(frame.drop(columns="snr"), summary_frame(frame)).fidelity) == [""]


def test_a_bound_of_one_is_a_bound_of_the_other() -> None:
    loose, known = DoseEstimate(25, 0, 25, "<", 3), DoseEstimate(12, 4.7, 20, "", 3)
    half, most = tighten(loose, known)
    assert (str(half), most) == ("<= 20", known)
    above = DoseEstimate(3, 3, float("inf"), ">", 3)
    assert str(tighten(known, above)[1]) == "> 4.7"
    assert tighten(known, DoseEstimate(83, 83, float("inf"), ">", 3))[1].value == 83
