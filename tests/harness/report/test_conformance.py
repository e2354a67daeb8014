"""Verdicts follow from cells by one rule, and every method has a claim."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.plugins.registry import VERDICTS, entries, verdicts
from harness.report.conformance import Claim, conformance_frame, judge, read_claims
from harness.report.write import as_csv

FOLDER = Path(__file__).parents[3] / "results" / "conformance"


def cells(**asr: dict[int, float | list[float]]) -> pd.DataFrame:
    """Cells of seeds 0 to 2 at chance floor 0.02; asr: by "attack" or "attack__defense", the ASR by dose."""
    rows = []
    for label, by_dose in asr.items():
        attack, _, defense = label.partition("__")
        for dose, values in by_dose.items():
            for seed, value in enumerate(np.broadcast_to(values, 3)):
                rows.append({"task": "t", "attack": attack, "attack_name": attack, "defense": defense or "none",
                             "defense_name": defense or "none", "dose": dose, "seed": seed, "status": "done",
                             "asr": value, "asr_floor": 0.02, "asr_n": 900, "utility": 0.9, "clean_metric": "accuracy",
                             "seconds": 1.0})  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("own", "flips", "why"),
    [
        ({10: 0.4, 50: 0.9}, {50: 0.02}, ""),
        ({10: 0.4, 50: 0.9}, {50: 0.8}, "no more than label flipping or chance"),
        ({10: 0.4, 50: 0.1}, {50: 0.02}, "no more than label flipping or chance"),
        ({10: 0.9, 50: 0.5}, {50: 0.02}, "falls with the dose"),
        ({10: 0.9, 50: 0.88}, {50: 0.02}, ""),
        ({10: 0.0, 50: [0.0, 0.0, 1.0]}, {50: 0.02}, "seeds do not agree"),
    ],
)
def test_an_attack_beats_label_flipping_and_does_not_fall(
    own: dict[int, float], flips: dict[int, float], why: str
) -> None:
    found = judge(Claim("attacks", "mine", "t", 50), cells(mine={0: 0.02, **own}, label_flip=flips))
    assert (found.verdict, found.why) == ("unproven" if why else "works", why)


def test_flips_against_one_input_are_no_control_for_an_attack_on_many() -> None:
    frame = cells(mine={10: 0.4, 50: 0.9}, label_flip={50: [1.0, 0.0, 1.0]})
    frame.loc[frame.attack == "label_flip", "asr_n"] = 1
    assert judge(Claim("attacks", "mine", "t", 50), frame).verdict == "works"
    assert judge(Claim("attacks", "mine", "t", 50), frame.assign(asr_n=1)).base == pytest.approx((1 + 0.02 + 1) / 3)


def defended(asr: float, clean: float, plain: float = 1.0, suspicion: tuple[float, float] = (0.0, 0.0)) -> pd.DataFrame:
    """An attack of ASR `plain` at dose 50, and a defense that leaves `asr`, at this clean accuracy; reserve: 0.8."""
    frame = cells(a={0: 0.02, 50: plain}, a__mine={0: 0.02, 50: asr}, a__reserve_only={0: 0.02, 50: 0.02})
    frame.loc[frame.defense == "mine", "utility"] = clean
    frame.loc[frame.defense == "reserve_only", "utility"] = 0.8
    return frame.assign(model_suspicion=np.where(frame.dose == 0, *suspicion) + 0.01 * frame.seed)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (defended(0.1, 0.89), ""),
        (defended(0.9, 0.89), "ASR stays"),
        (defended(0.1, 0.82), "costs 0.08 of the clean metric"),
        (defended(0.1, 0.82, plain=0.3), "the attack does not work undefended"),
    ],
)
def test_a_defense_lowers_asr_at_a_stated_cost(frame: pd.DataFrame, why: str) -> None:
    found = judge(Claim("defenses", "mine", "t", 50, "a"), frame)
    assert (found.verdict, found.why) == ("unproven" if why else "works", why)
    assert (found.base, found.clean_base) == (frame[frame.defense == "none"].asr.max(), pytest.approx(0.9))


def test_a_defense_beats_its_clean_rows_alone() -> None:
    found = judge(Claim("defenses", "mine", "t", 50, "a", cost=0.2), defended(0.1, 0.79))
    assert found.why == "no better on clean data than reserve_only"


@pytest.mark.parametrize(("alone", "why"), [(30.0, ""), (10.0, "no better on clean data than reserve_only")])
def test_a_screen_that_leaves_perplexity_as_it_is_beats_a_worse_one(alone: float, why: str) -> None:
    frame = defended(0.1, 20.0).assign(clean_metric="perplexity")
    frame.loc[frame.defense != "reserve_only", "utility"] = 20.0
    frame.loc[frame.defense == "reserve_only", "utility"] = alone
    assert judge(Claim("defenses", "mine", "t", 50, "a"), frame).why == why


def test_a_judge_of_models_tells_poisoned_ones() -> None:
    claim = Claim("defenses", "mine", "t", 50, "a", measure="model_suspicion")
    assert judge(claim, defended(1.0, 0.9, suspicion=(0.1, 3.0))).verdict == "works"
    assert judge(claim, defended(1.0, 0.9, suspicion=(0.0, 0.0))).why == "AUROC over models 0.50"


def test_what_was_not_run_has_no_verdict() -> None:
    assert judge(Claim("attacks", "mine", "t", 50), cells(other={50: 1.0})).verdict == "not run"


def test_every_method_has_a_claim() -> None:
    claimed = {(claim.kind, claim.method) for claim in read_claims(FOLDER / "claims.yaml")}
    controls = {("attacks", "none"), ("attacks", "label_flip"), ("defenses", "none"), ("defenses", "random_filter"),
                ("defenses", "reserve_only")}  # fmt: skip
    own = {
        (kind, name) for kind in ("attacks", "defenses") for name, entry in entries(kind).items() if not entry.source
    }
    assert own - claimed == controls


def test_published_verdicts_follow_from_published_cells() -> None:
    made = pd.read_csv(io.StringIO(as_csv(conformance_frame(FOLDER))))
    pd.testing.assert_frame_equal(made, pd.read_csv(VERDICTS), rtol=1e-3, check_dtype=False)
    assert set(made.verdict) <= {"works", "unproven", "not run"}
    assert verdicts()["attacks", "witches_brew"].startswith("unproven: ")
