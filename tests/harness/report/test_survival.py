"""Seeds that fall into two groups are drawn as a share of seeds by dose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.report.cells import read_cells
from harness.report.dose_response import Curve
from harness.report.figures import write_figures
from harness.report.survival import seeds_won
from harness.report.write import build_tables

RESULTS = Path(__file__).parents[3] / "results"
DOSES = np.array([0, 1, 10, 100, 1000.0])


def step(first: int) -> Curve:
    """ASR is 0 below the dose of this index, and 1 from there on."""
    return Curve(DOSES, (np.arange(len(DOSES)) >= first).astype(float), 0.0)


def test_a_seed_that_never_fires_keeps_the_share_below_one() -> None:
    doses, shares = seeds_won({0: step(1), 1: step(2), 2: step(3), 3: step(9)})
    assert doses == pytest.approx([1, 10, 100])
    assert shares == pytest.approx([0.25, 0.5, 0.75])


def test_a_seed_that_was_run_at_fewer_doses_counts_as_far_as_it_was_run() -> None:
    short = Curve(DOSES[:3], np.zeros(3), 0.0)  # not known beyond 10
    doses, shares = seeds_won({0: step(2), 1: step(4), 2: short})
    assert doses == pytest.approx([10, 1000])
    assert shares == pytest.approx([1 / 3, 1])  # of those still looked at beyond 10, all


def test_no_seed_that_fires() -> None:
    assert len(seeds_won({0: step(9)})[0]) == 0


def test_the_figure_is_drawn_where_seeds_are_split_only(tmp_path: Path) -> None:
    split = write_figures(build_tables(read_cells(RESULTS / "dose-response" / "audio" / "cells.csv")), tmp_path)
    whole = write_figures(build_tables(read_cells(RESULTS / "attacks" / "cells.csv")), tmp_path)
    assert [path.name for path in split if path.name.endswith("-seeds.png")] == ["fsdd_train_size_600_-seeds.png"]
    assert not [path for path in whole if path.name.endswith("-seeds.png")]
