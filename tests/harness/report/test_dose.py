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
from harness.report.dose_response import Curve, Hill, Unsupported
from harness.report.doses import dose_frame, scaling_frame
from harness.report.estimates import DoseEstimate, estimate
from harness.report.scaling import scaling_exponent
from harness.report.summary import summary_frame
from harness.report.trials import fit_firth

DOSES = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200, 500.0])


def curve(asr: list[float], doses: list[float] | None = None, chance: float = 0.0) -> Curve:
    return Curve(np.array(doses or DOSES[: len(asr)], dtype=float), np.array(asr), chance)


def brute_force(low: list[float], high: list[float]) -> tuple[float, float]:
    """The 95 % interval of `mean_of`, by summing over a fine square of means and spreads with scipy's distributions."""
    means, spreads = np.linspace(-4, 12, 1601), np.geomspace(0.005, 8, 300)
    logs = np.log(spreads / censored.USUAL_SPREAD) / censored.SPREAD_OF_SPREADS
    weight = np.tile(stats.t.pdf(logs, censored.TAIL), (len(means), 1))
    for a, b in zip(low, high):
        at = stats.norm(means[:, None], spreads)
        weight *= at.pdf(a) if a == b else at.cdf(b) - at.cdf(a)
    total = np.cumsum(weight.sum(axis=1))
    return tuple(np.interp([0.025, 0.975], total / total[-1], means))


@pytest.mark.parametrize(
    ("low", "high"),
    [([2, 2.3, 2.1], [2, 2.3, 2.1]), ([1, 1, 1.5], [2, 2, 1.5]), ([2, 2.5, 3, 3.2], [2, 2.5, 3, inf])],
)
def test_the_mean_of_few_seeds_is_the_posterior_under_the_published_spreads(
    low: list[float], high: list[float]
) -> None:
    found = censored.mean_of(np.array(low, float), np.array(high, float))
    assert found.interval == pytest.approx(brute_force(low, high), abs=0.03)
    assert found.interval.low < found.value < found.interval.high


def test_many_seeds_leave_the_prior_behind() -> None:
    y = np.random.default_rng(0).normal(2, 0.9, 60)
    low, high = stats.t.interval(0.95, 59, y.mean(), stats.sem(y))
    assert censored.mean_of(y, y).interval == pytest.approx((low, high), abs=0.02)


def test_p_and_interval_are_of_one_distribution() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        y = rng.normal(0.3, 0.3, 4)
        found = censored.mean_of(y, y)
        assert (found.p_zero() < 0.05) == (not found.interval.low < 0 < found.interval.high)


def test_values_known_within_an_interval_give_no_false_certainty() -> None:
    low, high = censored.mean_of(np.full(3, log(5)), np.full(3, log(10))).interval
    assert low < log(5) + 0.1
    assert high > log(10) - 0.1


def test_a_bound_is_the_end_of_its_interval() -> None:
    """Three seeds above 500: the mean may be a little below, and with five no more than a little."""
    top = log(500)
    limits = [censored.lower_limit(np.full(n, top), n) for n in (3, 5, 10)]
    assert limits[0] < limits[1] <= limits[2] == top
    assert censored.p_beyond(np.full(3, top), 3, limits[0]) == pytest.approx(0.025, abs=1e-3)
    assert censored.lower_limit(np.full(2, top), 3) < limits[0]
    assert limits[0] > censored.lower_limit(np.array([top - 1, top, top]), 3) > limits[0] - 1
    with pytest.raises(ValueError, match="no value with two finite ends"):
        censored.mean_of(np.full(3, log(500)), np.full(3, inf))


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
    assert dose_response.effective_dose(curve([0.8, 0.9, 1])) == (-inf, 0.0)
    with pytest.raises(Unsupported, match="without any poison"):
        dose_response.estimate_ed({s: curve([0.4 + 0.1 * s, 0.9, 1]) for s in range(3)})
    with pytest.raises(Unsupported, match="chance floor is 1"):
        dose_response.effective_dose(curve([1.0, 1, 1], chance=1.0))


def test_an_attacker_need_not_use_all_samples() -> None:
    """A screen that catches strong backdoors only: ASR falls again, and the smaller dose counts."""
    falls = {s: curve([0, 0, 0.1, 0.3, 0.7, 0.1, 0.0]) for s in range(3)}
    assert 5 < dose_response.estimate_ed(falls).value < 10
    assert dose_response.ed_isotonic(falls).censored == ">", "the isotonic check sees no crossing, and says so"


def test_the_dose_is_chosen_on_other_seeds() -> None:
    """One lucky training at dose 2 is nobody's plan; a fall that all seeds share is."""
    lucky = {s: curve([0, 0, 0.9 if s == 0 else 0.0, 0, 0.0, 0, 0.1]) for s in range(3)}
    assert dose_response.effective_dose(lucky[0])[1] < log(5), "on its own it has an ED50"
    assert dose_response.effective_dose(dose_response.choose_doses(lucky)[0]) == (log(50), inf)
    falls = {s: curve([0, 0, 0.1, 0.3, 0.7, 0.1, 0.0]) for s in range(3)}
    assert 5 < dose_response.estimate_ed(dose_response.choose_doses(falls)).value < 10
    alone = {0: curve([0, 0.1, 0.9])}
    assert dose_response.choose_doses(alone) == alone


def test_a_sweep_and_a_bisection_of_one_curve_agree() -> None:
    rng, doses = np.random.default_rng(0), [[0, 5, 10, 20, 500], [0, 2, 10, 50, 500], [0, 5, 10, 50, 500]]
    swept, bisected = {}, {}
    for seed in range(3):
        truth = Hill(0.03, 0.97, log(11) + 0.2 * rng.normal(), 2.5)
        swept[seed] = Curve(DOSES, truth.asr(DOSES), 0.03)
        few = np.array(doses[seed], float)
        bisected[seed] = Curve(few, truth.asr(few), 0.03)
    both = [dose_response.estimate_ed(dose_response.choose_doses(c)).value for c in (swept, bisected)]
    assert both[0] == pytest.approx(both[1], rel=0.05)


def test_censored_seeds_are_stated() -> None:
    never = {s: curve([0, 0, 0, 0, 0, 0.1]) for s in range(3)}
    at_once = {s: curve([0, 1, 1, 1, 1, 1]) for s in range(3)}
    bound = dose_response.estimate_ed(never)
    assert 15 < bound.value < 20, "the end of a 95 % interval, not the median seed"
    assert str(bound) == f"> {bound.value:.0f}"
    assert str(dose_response.estimate_ed(at_once)).startswith("<= 1.")
    factor = dose_response.protection(never, at_once)
    assert 15 < factor.value < 20
    assert factor.p < 0.05
    with pytest.raises(Unsupported, match="3 of 3 seeds"):
        dose_response.protection(never, never)


ANY = [(log(3.1),) * 2, (log(1.6),) * 2, (log(3),) * 2, (log(200), inf), (log(2),) * 2]


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (ANY, "3 (never in 1 of 5)"),
        ([(log(5.5),) * 2, (log(100), inf), (log(100), inf)], "never in 2 of 3; else 5.5"),
        ([(-inf, 0.0), (log(500), inf), (log(500), inf)], "never in 2 of 3; at once in 1 of 3"),
        ([(-inf, 0.0), (log(90),) * 2, (log(80),) * 2], "80 (at once in 1 of 3)"),
        ([(log(5),) * 2] * 3 + [(-inf, 0.0), (log(500), inf)], "5 (never in 1 of 5; at once in 1 of 5)"),
        ([(log(16),) * 2, (log(27),) * 2], "16 to 27 (2 seeds)"),
        ([(log(10), log(50))] * 2, "10 to 50 (2 seeds)"),
        ([(log(50), inf)] * 2, "> 50 (2 seeds)"),
        ([(log(12),) * 2, (log(50), inf)], "12 to > 50 (2 seeds)"),
        ([(log(11),) * 2], "11 (1 seed)"),
        ([(log(2),) * 2, (log(20),) * 2, (log(300),) * 2], "not determined by 3 seeds"),
        ([(-inf, inf)] * 3, "not determined by 3 seeds"),
    ],
)
def test_seeds_that_carry_no_interval_get_none(bounds: list[tuple[float, float]], words: str) -> None:
    found = estimate(bounds, log(50))
    assert str(found) == words
    assert found.low != found.low
    assert found.p != found.p


def test_an_open_seed_close_to_the_others_is_one_of_them() -> None:
    found = estimate([(log(300),) * 2, (log(400),) * 2, (log(500), inf)], log(500))
    assert 300 < found.value < 550
    assert not found.words


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
    found = scaling_exponent(by_rate)
    assert found.value == pytest.approx(1, abs=0.05)
    assert found.low < 1 < found.high
    assert found.verdict == "grows with the size"
    with pytest.raises(Unsupported, match="one training-set size"):
        scaling_exponent({k: c for k, c in by_rate.items() if k[0] == 500})


def hills(middles: dict[tuple[int, int], float]) -> dict[tuple[int, int], Curve]:
    return {place: Curve(DOSES, Hill(0.02, 1, log(m), 3).asr(DOSES), 0.0) for place, m in middles.items()}


def test_what_seeds_share_over_sizes_does_not_widen_the_exponent() -> None:
    """Levels of seeds differ tenfold, their slopes never do."""
    found = scaling_exponent(hills({(n, s): m for n in (500, 2000, 8000) for s, m in enumerate((5, 15, 50, 20))}))
    assert found.value == pytest.approx(0, abs=0.02)
    assert found.high - found.low < 0.2
    assert found.verdict.startswith("a number")


def test_sizes_that_leave_the_line_are_no_power_law() -> None:
    bend = {500: 10, 1000: 11, 2000: 60, 4000: 62}
    found = scaling_exponent(hills({(n, s): m * (1 + 0.03 * s + 0.02 * (n % 7 + s) % 3) for n, m in bend.items()
                                    for s in range(5)}))  # fmt: skip
    assert found.lack_of_fit < 0.01
    assert found.verdict == "no power law"
    assert found.local[1] > 1.5 > abs(found.local[2])


def test_bounds_have_no_exponent() -> None:
    """All below the smallest dose: a number that cannot fall below one says nothing of the sizes."""
    at_once = {(n, s): curve([0, 1, 1, 1]) for n in (500, 1000, 2000) for s in range(5)}
    found = scaling_exponent(at_once)
    assert (found.verdict, found.open_share) == ("not determined by 5 seeds", 1.0)
    assert found.value != found.value


def test_published_numbers_read_well() -> None:
    assert str(DoseEstimate(10.66, 8.1, 14.2, "", 3)) == "11 (8.1 to 14)"
    assert str(DoseEstimate(9.96, 8.1, 14.2, "", 3)) == "10 (8.1 to 14)"
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
    frame["asr"] += 0.2 * np.random.default_rng(0).random(4)[frame.seed] * (frame.defense == "good")
    means = frame[frame.dose > 0].groupby(["defense", "seed"]).asr.mean()
    expected = stats.ttest_rel(means["good"], means["none"], alternative="less").pvalue
    assert paired_t_test(frame, "good", "none") == pytest.approx(expected)
    assert np.isnan(paired_t_test(frame, "absent", "none"))


def test_equal_differences_prove_nothing() -> None:
    """30 of 30 against 29 of 30, in every seed."""
    for seeds in (2, 3, 5):
        rows = pd.concat([cells({"none": 1, "good": 1})] * 2)
        rows = rows[(rows.dose == 500) & (rows.seed < seeds)].drop_duplicates(["defense", "seed"])
        rows = rows.assign(asr=np.where(rows.defense == "none", 1.0, 29 / 30), asr_n=30)
        p = paired_t_test(rows, "good", "none")
        assert np.isnan(p) if seeds < 3 else 0.05 < p < 0.5, seeds
        backwards = paired_t_test(rows, "none", "good")
        assert np.isnan(backwards) if seeds < 3 else p + backwards == pytest.approx(1)


def test_no_row_is_significant_with_an_interval_that_holds_1() -> None:
    rng, rows = np.random.default_rng(1), []
    for i, times in enumerate((1.0, 1.3, 1.7, 2.5) * 3):
        frame = cells({"none": 1, "good": times})
        noise = rng.normal(0, 0.04, len(frame))
        frame = frame.assign(asr=(frame.asr + noise).clip(0, 1))
        rows.append(dose_frame(frame, summary_frame(frame)).assign(attack=str(i)))
    found = pd.concat(rows)
    found = found[found.protection_low.notna()]
    holds = (found.protection_low < 1) & (found.protection_high > 1)
    assert holds.any()
    assert not holds.all()
    pd.testing.assert_series_equal(found.p >= 0.05, holds, check_names=False)


def test_a_high_floor_has_no_plain_ed50() -> None:
    frame = cells({"none": 1, "good": 3}).assign(asr_floor=0.56)
    frame = frame.assign(asr=0.56 + 0.44 * frame.asr)
    row = dose_frame(frame, summary_frame(frame)).iloc[0]
    assert row.ed50_text.endswith("; at ASR 0.78)")
    assert (row.chance, row.level) == pytest.approx((0.56, 0.78))
    rng = np.random.default_rng(3)
    noise = frame[frame.defense == "none"]
    noise = noise.assign(asr=np.where(noise.dose == 500, [0.99, 0.99, 0.4, 0.4] * 10, rng.uniform(0.5, 0.6, 40)))
    row = dose_frame(noise, summary_frame(noise)).iloc[0]
    assert "ed50" not in row.dropna() or row.ed50_censored == ">", "noise crossed the level"


def test_trials_of_one_answer_have_an_ed90_of_their_own() -> None:
    rng, rows = np.random.default_rng(0), []
    for trial in range(20):
        threshold = np.exp(log(6) + 0.8 * rng.normal())
        rows += [{**plugin_columns(task="t", attack="a", defense="none"), "stage": "x", "dose": d, "seed": trial,
                  "status": "done", "reason": "", "asr": float(d >= threshold), "asr_floor": 0.0, "utility": 0.9,
                  "asr_n": 1, "utility_n": 100, "clean_metric": "accuracy"}
                 for d in (0, 1, 2, 5, 10, 25, 50)]  # fmt: skip
    frame = with_train_size(pd.DataFrame(rows), 500)
    row = dose_frame(frame, summary_frame(frame)).iloc[0]
    assert row.ed50_low < 6 < row.ed50_high
    assert row.ed90 > 1.8 * row.ed50
    at_once = frame.assign(asr=(frame.dose > 0).astype(float))
    row = dose_frame(at_once, summary_frame(at_once)).iloc[0]
    assert (row.ed50_text, row.ed90_text) == ("<= 1", "<= 1"), "nothing is extrapolated"
    x, y = np.array([0.0, 1, 2, 3]), np.array([0.0, 0, 1, 1])  # separated: a plain regression runs away
    at, slope = fit_firth(x, y)
    assert 0 < slope < 10
    assert -at / slope == pytest.approx(1.5, abs=0.01)


def test_dose_frame_has_the_numbers_and_the_gate() -> None:
    frame = cells({"none": 1, "good": 3, "useless": 1})
    found = dose_frame(frame, summary_frame(frame)).set_index("defense")
    assert found.loc["none"].ed50 == pytest.approx(8 * exp(0.15), rel=0.05)
    assert found.loc["good"].protection == pytest.approx(3, rel=0.05)
    assert found.loc["useless"].protection == pytest.approx(1, rel=0.05)
    assert found.loc["good"].p < 0.05 < found.loc["useless"].p
    assert found.loc["good"].protection_text == "3 ({0.protection_low:.2g} to {0.protection_high:.2g})".format(
        found.loc["good"]
    )
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


def test_seeds_of_dose_0_alone_have_no_part_in_a_curve() -> None:
    frame = cells({"none": 0.5, "filter": 0.2})
    unpoisoned = frame[frame.dose == 0]
    with_more = pd.concat([frame, unpoisoned.assign(seed=unpoisoned.seed + 10)], ignore_index=True)
    assert len(with_more) > len(frame)
    plain, again = (dose_frame(c, summary_frame(c)) for c in (frame, with_more))
    pd.testing.assert_frame_equal(plain, again)


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
