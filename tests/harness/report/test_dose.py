"""ED50, protection factor, scaling exponent: exact where theory is exact, covering where only simulation can tell."""

from __future__ import annotations

from math import exp, inf, log

import numpy as np
import pandas as pd
import pytest
from helpers import plugin_columns
from scipy import stats

from harness.report import censored, dose_response
from harness.report.compare import holm, paired_t_test
from harness.report.dose_response import Curve, DoseEstimate, Hill, Unsupported
from harness.report.doses import dose_frame, scaling_frame
from harness.report.summary import summary_frame

DOSES = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200, 500.0])


def curve(asr: list[float], doses: list[float] | None = None, chance: float = 0.0) -> Curve:
    return Curve(np.array(doses or DOSES[: len(asr)], dtype=float), np.array(asr), chance)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_mean_without_censoring_is_the_t_interval(n: int) -> None:
    y = np.random.default_rng(n).normal(2, 0.5, n)
    found = censored.mean(y, y)
    low, high = stats.t.interval(0.95, n - 1, y.mean(), stats.sem(y))
    assert (found.value, found.low, found.high) == pytest.approx((y.mean(), low, high), abs=1e-3)


def test_slope_without_censoring_is_least_squares() -> None:
    x = np.log(np.repeat([500, 1000, 2000.0], 3))
    y = 0.3 * x + np.random.default_rng(0).normal(0, 0.3, 9)
    found, line = censored.slope(y, y, x), stats.linregress(x, y)
    half = stats.t.ppf(0.975, 7) * line.stderr
    expected = (line.slope, line.slope - half, line.slope + half)
    assert (found.value, found.low, found.high) == pytest.approx(expected, abs=1e-3)


def test_censored_mean_agrees_with_scipy() -> None:
    """scipy.stats fits the same likelihood (value only; it gives no interval for a mean)."""
    y = np.array([1.0, 2.0, 3.0, 4.0])
    low, high = np.append(y, [4.5, -inf]), np.append(y, [inf, 1.5])
    data = stats.CensoredData(uncensored=y, left=[1.5], right=[4.5])
    assert censored.mean(low, high).value == pytest.approx(stats.norm.fit(data)[0], abs=1e-2)


def test_values_known_within_an_interval_give_no_false_certainty() -> None:
    low, high = np.full(3, log(5)), np.full(3, log(10))
    found = censored.mean(low, high)
    assert log(5) < found.value < log(10)
    assert found.low < log(5)
    assert found.high > log(10)


def test_open_ends() -> None:
    assert censored.mean(np.full(3, log(500)), np.full(3, inf)).value == inf
    assert censored.mean(np.full(3, -inf), np.zeros(3)).value == -inf
    one_open = censored.mean(np.log([5, 20, 100.0]), np.array([log(10), log(50), inf]))
    assert one_open.high == inf
    assert censored.mean(np.full(2, -inf), np.full(2, inf)).n == 0


def test_hill_is_found_again() -> None:
    truth = Hill(0.05, 0.9, log(20), 3)
    found = dose_response.fit_hill(Curve(DOSES, truth.asr(DOSES), 0.05))
    np.testing.assert_allclose(found.asr(DOSES), truth.asr(DOSES), atol=5e-3)
    assert exp(found.crossing(0.5)) == pytest.approx(exp(truth.crossing(0.5)), rel=0.02)
    assert truth.crossing(0.95) == inf
    assert truth.crossing(0.01) == -inf


def test_level_is_counted_from_the_chance_floor() -> None:
    assert curve([0.4, 0.5], chance=0.4).level(0.5) == pytest.approx(0.7)


def test_a_step_is_known_between_two_doses_only() -> None:
    assert dose_response.effective_dose(curve([0, 0, 0, 0, 1, 1])) == pytest.approx((log(5), log(10)))


def test_a_slope_gives_a_point_inside_its_bracket() -> None:
    low, high = dose_response.effective_dose(curve([0, 0, 0, 0.2, 0.7, 1]))
    assert low == high
    assert log(5) < low < log(10)


def test_ends_of_the_doses_are_ends_of_knowledge() -> None:
    assert dose_response.effective_dose(curve([0, 0, 0.1])) == (log(2), inf)
    assert dose_response.effective_dose(curve([0, 0.9, 1])) == (-inf, 0.0)
    with pytest.raises(Unsupported, match="without any poison"):
        dose_response.effective_dose(curve([0.8, 0.9, 1]))
    with pytest.raises(Unsupported, match="chance floor is 1"):
        dose_response.effective_dose(curve([1.0, 1, 1], chance=1.0))


def test_an_attacker_need_not_use_all_samples() -> None:
    """A screen that catches strong backdoors only: ASR falls again, and the smaller dose counts."""
    falls = {s: curve([0, 0, 0.1, 0.3, 0.7, 0.1, 0.0]) for s in range(3)}
    assert 5 < dose_response.estimate_ed(falls).value < 10
    assert dose_response.ed_isotonic(falls).censored == ">", "the isotonic check sees no crossing, and says so"


def test_censored_seeds_are_stated() -> None:
    never = {s: curve([0, 0, 0, 0, 0, 0.1]) for s in range(3)}
    at_once = {s: curve([0, 1, 1, 1, 1, 1]) for s in range(3)}
    assert str(dose_response.estimate_ed(never)) == "> 20"
    assert str(dose_response.estimate_ed(at_once)) == "< 1"
    assert str(dose_response.protection(never, at_once)) == "> 20"
    with pytest.raises(Unsupported, match="3 of 3 seeds"):
        dose_response.protection(never, never)


def test_protection_is_paired_by_seed() -> None:
    """Seeds differ tenfold, the ratio never does: the interval of the ratio must not see the seeds."""
    mids = {0: 5.0, 1: 15.0, 2: 50.0}
    plain = {s: Curve(DOSES, Hill(0.02, 1, log(m), 3).asr(DOSES), 0.0) for s, m in mids.items()}
    guarded = {s: Curve(DOSES, Hill(0.02, 1, log(4 * m), 3).asr(DOSES), 0.0) for s, m in mids.items()}
    found = dose_response.protection(guarded, plain)
    assert found.value == pytest.approx(4, rel=0.05)
    assert found.high / found.low < 1.6
    assert dose_response.estimate_ed(plain).high / dose_response.estimate_ed(plain).low > 10


def test_scaling_exponent() -> None:
    sizes = [500, 1000, 2000]
    by_rate = {(n, s): Curve(DOSES, Hill(0.02, 1, log(0.02 * n * 1.1**s), 3).asr(DOSES), 0.0)
               for n in sizes for s in range(3)}  # fmt: skip
    found = dose_response.scaling_exponent(by_rate)
    assert found.value == pytest.approx(1, abs=0.05)
    assert found.low < 1 < found.high
    with pytest.raises(Unsupported, match="one training-set size"):
        dose_response.scaling_exponent({k: c for k, c in by_rate.items() if k[0] == 500})


def test_published_numbers_read_well() -> None:
    assert str(DoseEstimate(10.66, 8.1, 14.2, "", 3)) == "11 (8.1 to 14)"
    assert str(DoseEstimate(10.66, float("nan"), float("nan"), "", 1)) == "11"
    assert str(DoseEstimate(21, 0.067, inf, "", 3)) == "21 (0.067 or more)"
    assert str(DoseEstimate(float("nan"), 0, 0, "", 0)) == "-"


def test_holm_steps_down() -> None:
    # Holm 1979: smallest p times N, next times N - 1, never falling; nan is no comparison.
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03])), [0.06, 0.03, 0.06])
    np.testing.assert_allclose(holm(np.array([0.02, np.nan])), [0.02, np.nan])


def cells(effect: dict[str, float]) -> pd.DataFrame:
    """A table of cells: two defenses and none, badnets, Hill curves whose middle the defense multiplies."""
    rows = []
    for defense, times in effect.items():
        for seed in range(4):
            asr = Hill(0.02, 1, log(8 * times) + 0.1 * seed, 3).asr(DOSES)
            rows += [
                {**plugin_columns(task="t", attack="a", defense=defense), "stage": "x", "dose": int(d),
                 "seed": seed, "status": "done", "reason": "", "asr": y, "asr_floor": 0.02, "utility": 0.9,
                 "asr_n": 90, "utility_n": 100, "clean_metric": "accuracy"}
                for d, y in zip(DOSES, asr, strict=True)
            ]  # fmt: skip
    return with_train_size(pd.DataFrame(rows), 500)


def with_train_size(cells: pd.DataFrame, size: int) -> pd.DataFrame:
    return cells.assign(task=f"t(train_size={size})", task_options=f'{{"train_size": {size}}}', train_size=size)


def test_paired_is_the_paired_t_test() -> None:
    frame = cells({"none": 1, "good": 3})
    means = frame[frame.dose > 0].groupby(["defense", "seed"]).asr.mean()
    expected = stats.ttest_rel(means["good"], means["none"], alternative="less").pvalue
    assert paired_t_test(frame, "good", "none") == pytest.approx(expected)
    assert np.isnan(paired_t_test(frame, "absent", "none"))


def test_dose_frame_has_the_numbers_and_the_gate() -> None:
    frame = cells({"none": 1, "good": 3, "useless": 1})
    found = dose_frame(frame, summary_frame(frame)).set_index("defense")
    assert found.loc["none"].ed50 == pytest.approx(8 * exp(0.15), rel=0.05)
    assert found.loc["good"].protection == pytest.approx(3, rel=0.05)
    assert found.loc["useless"].protection == pytest.approx(1, rel=0.05)
    assert found.loc["good"].p < 0.05 < found.loc["useless"].p
    weak = frame.assign(asr=0.03)
    shut = dose_frame(weak, summary_frame(weak))
    assert not shut.gate.any()
    assert "protection" not in shut, "no credit where the attack does not work"


def test_trials_lost_without_poison_are_left_out_and_counted() -> None:
    frame = cells({"none": 1})
    frame.loc[frame.seed == 3, ["asr", "asr_floor"]] = 1.0
    row = dose_frame(frame, summary_frame(frame)).iloc[0]
    assert (row.seeds, row.note) == (3, "1 trial left out: lost without any poison")
    assert row.ed50 == pytest.approx(8 * exp(0.1), rel=0.05)


def test_no_dose_axis_no_curve() -> None:
    frame = cells({"none": 1, "good": 3})
    for few in ([0], [0, 5]):
        part = frame[frame.dose.isin(few)]
        assert dose_frame(part, summary_frame(part)).empty
    with pytest.raises(Unsupported, match="no dose above 0"):
        dose_response.effective_dose(curve([0.1], [0]))


def test_scaling_frame_joins_sizes_of_one_task() -> None:
    small = cells({"none": 1})
    large = with_train_size(cells({"none": 2}), 1000)
    found = scaling_frame(pd.concat([small, large]))
    assert found.task.tolist() == ["t"]
    assert found.exponent[0] == pytest.approx(1, abs=0.05)
    assert scaling_frame(small).empty
    absent = small.assign(defense="odd", status="not applicable", train_size=None, asr=np.nan)
    everything = pd.concat([small, large, absent.astype({"train_size": float})])  # as a table with gaps is read
    assert scaling_frame(everything).sizes.tolist() == ["500 1000"]


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_covers(seeds: int) -> None:
    """60 simulated experiments each; `tests/campaigns/coverage_simulation.py` runs 500 and prints what it finds."""
    from coverage_simulation import covered

    assert covered(experiments=60, seeds=seeds, slope=3, spread=0.4)[0] >= 0.87  # 3 standard errors below 0.95
