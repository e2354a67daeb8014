"""Ranks, the headline and the overview's answer, from cells that were made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import frame

from harness.report.compare import paired_t_test
from harness.report.summary import summary_frame, t_interval
from harness.report.write import build_tables
from harness.site.build import Options, build
from harness.site.headline import common_doses, headline
from harness.site.overview import answer_table
from harness.site.ranks import rank_defenses
from harness.site.sources import join_sources, open_sources

QUICK = Options(formats=("svg",))


BASE = np.array([0.90, 0.94, 0.88, 0.92, 0.91])
FOUR = {"none": list(BASE), "good": list(BASE - 0.5 + [0, 0.01, 0.02, 0.01, 0]),
        "same": list(BASE - 0.5 + [0.02, 0, 0, 0.02, 0.01]), "bad": list(BASE - 0.1)}  # fmt: skip


def test_ranks_tell_apart_what_the_seeds_tell_apart_and_nothing_else() -> None:
    found = rank_defenses(frame(FOUR, doses=(5, 10)), {"a"})
    assert found is not None
    ranks = dict(zip(found.rows.defense, found.rows["rank"]))
    assert ranks == {"good": 1, "same": 1, "bad": 3, "none": 0}
    rows = found.rows.set_index("defense")
    assert list(rows.tied[["good", "same", "bad", "none"]]) == [True, True, False, False]
    assert rows.better_than["good"] == "bad"
    low, high = t_interval(pd.Series(FOUR["good"]))
    assert (rows.low["good"], rows.high["good"]) == pytest.approx((low, high))
    assert found.blocks == (("a", 5), ("a", 10))


def test_two_seeds_make_only_ties() -> None:
    found = rank_defenses(frame({"none": [0.9, 0.8], "good": [0.2, 0.5], "bad": [0.6, 0.55]}), {"a"})
    assert found is not None
    assert list(found.rows["rank"]) == [1, 1, 0]
    assert list(found.rows.tied) == [True, True, False]


def test_only_complete_blocks_and_working_attacks_count() -> None:
    cells = pd.concat([frame(FOUR, doses=(5, 10, 20, 50)), frame(FOUR, "weak", (5,))], ignore_index=True)
    cells.loc[(cells.defense == "good") & (cells.dose == 10) & (cells.seed == 3), "status"] = "timed out"
    found = rank_defenses(cells, {"a"})
    assert found is not None
    assert found.blocks == (("a", 5), ("a", 20), ("a", 50)), "dose 10 lacks a seed of one defense"
    assert rank_defenses(cells, set()) is None, "no attack works: there is no order"


def test_a_defense_that_lacks_most_blocks_is_left_out_rather_than_the_blocks() -> None:
    cells = pd.concat([frame(FOUR, doses=(5, 10, 20, 50)), frame({"late": list(BASE)}, doses=(50,))])
    found = rank_defenses(cells, {"a"})
    assert found is not None
    assert found.left_out == ("late",)
    assert len(found.blocks) == 4


def test_only_who_lacks_a_kept_block_is_left_out_and_doses_are_in_order() -> None:
    """x is dropped for want of blocks that are dropped later, and is complete then."""
    has = {"none": (100, 30, 10, 5), "x": (30, 5), "y": (100, 10, 5), "z": (100, 30, 5), "w": (30, 10, 5)}
    found = rank_defenses(pd.concat([frame({name: list(BASE)}, doses=doses) for name, doses in has.items()]), {"a"})
    assert found is not None
    assert found.blocks == (("a", 5), ("a", 30))
    assert set(found.rows.defense) == {"none", "x", "z", "w"}
    assert found.left_out == ("y",)
    assert found.size == "2 blocks, 5 seeds"
    assert found.doses == "a at 5, 30"
    both = pd.concat([frame(FOUR, attack, doses) for attack, doses in {"a": (5, 10), "b": (5, 10), "c": (5,)}.items()])
    more = rank_defenses(both, {"a", "b", "c"})
    assert more is not None
    assert more.doses == "a, b at 5, 10; c at 5", "attacks of the same doses together"


def test_ranks_are_shown_with_intervals_of_a_share_and_with_the_p_of_every_pair(tmp_path: Path) -> None:
    wide = {"none": [0.99, 0.98, 0.99], "good": [0.0, 0.02, 0.3], "bad": [0.4, 0.5, 0.75]}
    frame(wide).to_csv(tmp_path / "cells.csv", index=False)
    with open_sources([tmp_path]) as found:
        build(join_sources(found), tmp_path / "site", QUICK)
    overview = " ".join((tmp_path / "site" / "index.html").read_text().split())
    assert "tie" not in overview[overview.index('<ul class="best">') :].partition("</ul>")[0]
    assert "good 0.11 (0.00 to 0.52)" in overview
    assert "of 2 defenses, 1 block, 3 seeds" in overview
    page = (tmp_path / "site" / "tasks" / "t.html").read_text()
    rank = rank_defenses(frame(wide), {"a"})
    assert rank is not None
    assert len(rank.tests) == 1, "of both directions the one that was measured"
    test = rank.tests.iloc[0]
    assert test.p == pytest.approx(paired_t_test(frame(wide), "good", "bad"))
    assert test.corrected == pytest.approx(2 * test.p), "Holm, over both directions"
    assert f"bad (p {test.corrected:.3f})".replace("0.", ".") in page
    assert f"{test.p:.3f}".removeprefix("0") in page[page.index('id="tests"') :]


def test_the_headline_has_costs_beside_gains() -> None:
    plain = frame({"none": list(BASE)}, doses=(0, 5, 10), asr_floor=0.1)
    costly = frame({"good": [0.1] * 5}, doses=(0, 5), asr_floor=0.1, utility=0.85, fit_seconds=6.0, clean_used=200)
    head = headline(build_tables(pd.concat([plain, costly], ignore_index=True))).set_index("defense")
    assert head.clean_cost["good"] == pytest.approx(-0.05)
    assert head.training_cost["good"] == pytest.approx(3)
    assert head.clean_used["good"] == 200
    assert list(head.dose) == [5, 5], "the largest dose that both have"
    assert head.asr["none"] == pytest.approx(BASE.mean())


def test_why_there_is_no_credit_is_the_reason_that_holds() -> None:
    weak = headline(build_tables(frame({"none": [0.1, 0.1], "good": [0.0, 0.0]})))
    assert {note.partition(";")[0] for note in weak.note} == {"attack too weak for credit"}
    alone = headline(build_tables(frame({"good": [0.9, 0.9]})))
    assert alone.note[0].startswith("no credit: `none` was not run here")


def test_the_common_dose_is_the_largest_that_most_have() -> None:
    cells = pd.concat([frame({"none": [0.9], "x": [0.2]}, doses=(5, 10)), frame({"none": [0.9]}, doses=(20,))])
    assert common_doses(summary_frame(cells)) == {("t", "a"): 10}


def test_the_overview_answers_by_modality() -> None:
    weak = {"none": [0.1, 0.1, 0.1]}
    parts = [frame({"none": [0.05, 0.06, 0.05]}, doses=(0,)), frame(weak, doses=(1, 2)),
             frame({"none": list(BASE[:3])}, doses=(5, 10)), frame({"good": [0.05] * 3}, doses=(0, 1, 2, 5)),
             frame({"good": list(BASE[:3])}, doses=(10, 20))]  # fmt: skip
    head = headline(build_tables(pd.concat(parts, ignore_index=True)))
    table = answer_table(head, {"t": "image_generation"})
    assert table is not None
    rows = table.rows
    assert [row[0].text for row in rows] == ["image generation", "all"]
    assert [f.text for f in rows[0][1:]] == [f.text for f in rows[1][1:]]
    assert 2 < float(rows[0][2].text) < 5
    assert rows[0][2].small == "1 attack"
    assert 1.5 < float(rows[0][3].text) < 4
