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
from harness.site import overview
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


def ranks_of(cells: pd.DataFrame, attacks: str = "a") -> dict[str, int]:
    found = rank_defenses(cells, set(attacks))
    assert found is not None
    return dict(zip(found.rows.defense, found.rows["rank"]))


def test_two_seeds_make_only_ties() -> None:
    assert ranks_of(frame({"none": [0.9, 0.8], "good": [0.2, 0.5], "bad": [0.6, 0.55]})) == {
        "good": 1, "bad": 1, "none": 0,
    }  # fmt: skip
    equal = frame({"none": [1.0, 1.0], "good": [29 / 30] * 2, "bad": [1.0, 1.0]}, asr_n=30)
    assert ranks_of(equal) == {"good": 1, "bad": 1, "none": 0}, "equal differences are no proof"


def test_who_refuses_every_input_has_no_rank() -> None:
    cells = pd.concat([frame(FOUR, doses=(0, 5)), frame({"wall": [0.0] * 5}, doses=(0, 5), utility=0.0)])
    found = rank_defenses(cells, {"a"})
    assert found is not None
    wall = found.rows.set_index("defense").loc["wall"]
    assert (wall["rank"], wall.why, wall.cost) == (0, "over budget", pytest.approx(-0.9))
    assert ranks_of(cells)["good"] == 1
    assert "wall" not in set(found.tests.better) | set(found.tests.worse)
    cheap = pd.concat([frame(FOUR, doses=(0, 5)), frame({"wall": [0.0] * 5}, doses=(0, 5), utility=0.88)])
    assert ranks_of(cheap)["wall"] == 1, "two points are within the budget"


def test_where_lower_is_better_the_budget_is_a_share() -> None:
    plain = frame(FOUR, utility=20.0, clean_metric="perplexity")
    for utility, rank in ((18.0, 1), (21.9, 1), (22.5, 0)):
        other = frame({"other": [0.0] * 5}, utility=utility, clean_metric="perplexity")
        assert ranks_of(pd.concat([plain, other]))["other"] == rank, utility


def test_a_missing_cell_counts_as_undefended() -> None:
    """Leaving out the attack that one fails at helps nobody, and hurts nobody else."""
    strong = {"none": list(BASE), "good": list(BASE - 0.4), "mine": list(BASE - 0.5)}
    other = {"none": list(BASE), "good": list(BASE - 0.5), "third": list(BASE - 0.5)}
    cells = pd.concat(
        [frame(strong, "a", (5,)), frame(other, "b", (5,)), frame({"third": list(BASE - 0.4)}, "a", (5,))]
    )
    found = rank_defenses(cells, {"a", "b"})
    assert found is not None
    assert found.blocks == (("a", 5), ("b", 5))
    rows = found.rows.set_index("defense")
    assert rows.missing["mine"] == 5
    assert rows.asr["mine"] == pytest.approx((2 * BASE - 0.5).mean() / 2)
    assert rows["rank"]["good"] == 1 < rows["rank"]["mine"]
    failed = frame(FOUR, doses=(5, 10))
    failed.loc[(failed.defense == "good") & (failed.dose == 10) & (failed.seed == 3), "status"] = "timed out"
    assert rank_defenses(failed, {"a"}).blocks == (("a", 5), ("a", 10))  # type: ignore[union-attr]


def test_blocks_that_nobody_else_ran_give_no_lead() -> None:
    alone = frame({"none": list(BASE), "good": [0.0] * 5}, "private", (5, 10, 20))
    cells = pd.concat([frame(FOUR, doses=(5, 10)), alone])
    found = rank_defenses(cells, {"a", "private"})
    assert found is not None
    assert found.blocks == (("a", 5), ("a", 10))
    assert ranks_of(cells, "a") == ranks_of(frame(FOUR, doses=(5, 10)))


def test_more_seeds_of_one_defense_change_nothing() -> None:
    before = rank_defenses(frame(FOUR, doses=(5, 10)), {"a"})
    for who in ("good", "none", "bad"):
        extra = frame({who: [0.5] * 9}, doses=(5,))
        cells = pd.concat([frame(FOUR, doses=(5, 10)), extra[extra.seed >= 5]], ignore_index=True)
        after = rank_defenses(cells, {"a"})
        assert before is not None
        assert after is not None
        assert after.seeds == 5
        pd.testing.assert_frame_equal(after.rows, before.rows)
    few = frame(FOUR, doses=(5, 10))
    few = few[(few.defense != "bad") | (few.seed < 2)]
    assert ranks_of(few)["bad"] > 1, "nor does a defense with fewer"


def test_a_defense_that_lacks_most_blocks_is_left_out() -> None:
    cells = pd.concat([frame(FOUR, doses=(5, 10, 20, 50)), frame({"late": list(BASE)}, doses=(50,))])
    found = rank_defenses(cells, {"a"})
    assert found is not None
    assert found.left_out == ("late",)
    assert len(found.blocks) == 4
    assert found.size == "4 blocks, 5 seeds"
    assert found.doses == "a at 5, 10, 20, 50"
    assert rank_defenses(cells, set()) is None, "no attack works: there is no order"
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


def test_clean_cost_is_that_without_poison() -> None:
    """The poison of dose 50 costs the undefended victim ten points, which are no merit of the defense."""

    def cells(defense: str, by_dose: dict[int, float]) -> list[pd.DataFrame]:
        return [frame({defense: list(BASE)}, doses=(d,), utility=u) for d, u in by_dose.items()]

    both = pd.concat([*cells("none", {0: 0.9, 50: 0.8}), *cells("good", {0: 0.88, 50: 0.88})], ignore_index=True)
    head = headline(build_tables(both)).set_index("defense")
    assert head.clean_cost["good"] == pytest.approx(-0.02)
    later = headline(build_tables(both[(both.dose > 0) | (both.defense == "none")])).set_index("defense")
    assert later.clean_cost["good"] == pytest.approx(0.08), "where dose 0 was not run"


def test_the_overview_counts_distinct_pairs_and_what_is_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    weak = {"none": [0.1, 0.1, 0.1]}
    parts = [frame({"none": [0.05, 0.06, 0.05]}, doses=(0,)), frame(weak, doses=(1, 2)),
             frame({"none": list(BASE[:3])}, doses=(5, 10)), frame({"good": [0.05] * 3}, doses=(0, 1, 2, 5, 10, 20)),
             frame({"same": list(BASE[:3])}, doses=(5, 10)), frame({"same": [0.05] * 3}, doses=(0, 1, 2))]  # fmt: skip
    cells = pd.concat(parts, ignore_index=True)
    variant = cells.assign(task="t(epochs=9)")
    head = headline(build_tables(pd.concat([cells, variant], ignore_index=True)))
    table = answer_table(head, {"t": "image_generation", "t(epochs=9)": "image_generation"})
    assert table is not None
    assert [row[0].text for row in table.rows] == ["image generation", "all"]
    assert [f.text for f in table.rows[0][1:]] == [f.text for f in table.rows[1][1:]]
    counts = [f.text for f in table.rows[1]]
    assert counts[1] == "1", "one pair of dataset and attack, in two variants"
    assert counts[3:] == ["1 / 0 / 0", "1 / 1 / 0"]
    monkeypatch.setattr(overview, "verdicts", lambda: {("defenses", "good"): "unproven: ASR stays"})
    without = answer_table(head, {"t": "image_generation", "t(epochs=9)": "image_generation"})
    assert without is not None
    assert [f.text for f in without.rows[1]][4] == "0 / 1 / 0", "an unproven defense makes no headline"
