"""Bisecting the doses: few cells, the same bracket, nothing asked twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.status import count_cells
from harness.grid.grid import Cell
from harness.grid.mapping import grid_from_mapping
from harness.run import adaptive
from harness.run.event import Ended
from harness.run.execute import execute_adaptive
from harness.run.plan import make_plan
from harness.run.record_cell import blank_record
from harness.run.settings import Settings
from harness.store.folder import Store
from harness.store.records import Measured, Record, load_all

GRID = {
    "tasks": ["digits"], "attacks": ["badnets", "none"], "doses": [0, 1, 2, 5, 10, 20, 50, 100, 200, 500],
    "defenses": ["none", "random_filter"], "seeds": [0, 1],
}  # fmt: skip


def answer(cell: Cell, crossing: float) -> Record:
    record = blank_record(cell)
    record.status = "done"
    if cell.attack.name != "none":
        asr = 0.9 if cell.dose >= crossing else 0.2
        record.metrics = {"asr": Measured(value=asr, n=9), "asr_floor": Measured(value=0.1, n=9)}
    return record


@pytest.mark.parametrize("crossing", [0, 1, 2, 7, 30, 500, 9999])
def test_bisection_brackets_every_crossing_with_few_cells(crossing: float, tmp_path: Path) -> None:
    cells = make_plan(grid_from_mapping(GRID), Store(tmp_path)).cells
    found: dict[str, Record] = {}
    while probes := adaptive.next_cells(cells, found):
        assert not {c.key for c in probes} & set(found), "nothing is asked for twice"
        found |= {c.key: answer(c, crossing) for c in probes}
    curve = [r for r in found.values() if (r.attack.name, r.defense.name, r.seed) == ("badnets", "none", 0)]
    run = sorted(r.dose for r in curve)
    assert len(run) <= 4, "10 doses need at most 4 probes"
    above = [d for d in GRID["doses"] if d >= crossing]
    below = [d for d in GRID["doses"] if d < crossing]
    assert not above or above[0] in run
    assert not below or below[-1] in run
    assert sum(r.attack.name == "none" for r in found.values()) == 4, "the control runs once per defense and seed"


def test_a_dose_on_the_slope_ends_the_search_once_there_are_two(tmp_path: Path) -> None:
    cells = make_plan(
        grid_from_mapping({**GRID, "attacks": ["badnets"], "defenses": ["none"], "seeds": [0]}), Store(tmp_path)
    ).cells
    found: dict[str, Record] = {}
    while probes := adaptive.next_cells(cells, found):
        (cell,) = probes
        found[cell.key] = answer(cell, 10)
        if cell.dose == 2:
            found[cell.key].metrics["asr"] = Measured(value=0.4, n=9)  # a third of the way from its floor
    assert sorted(r.dose for r in found.values()) == [1, 2, 10], "5 need not be run"


def test_a_slope_whose_crossing_is_not_held_is_followed_to_the_end(tmp_path: Path) -> None:
    cells = make_plan(
        grid_from_mapping({**GRID, "attacks": ["badnets"], "defenses": ["none"], "seeds": [0]}), Store(tmp_path)
    ).cells
    found: dict[str, Record] = {}
    while probes := adaptive.next_cells(cells, found):
        (cell,) = probes
        found[cell.key] = answer(cell, 9999)
        found[cell.key].metrics["asr"] = Measured(value=0.4, n=9)  # on the slope, but below half at every dose
    assert max(r.dose for r in found.values()) == 500, "or else ED50 would be called higher than a dose never tried"


def test_a_curve_that_cannot_go_on_stops(tmp_path: Path) -> None:
    cells = [c for c in make_plan(grid_from_mapping(GRID), Store(tmp_path)).cells if c.attack.name == "badnets"]
    probes = adaptive.next_cells(cells, {})
    assert len(probes) == 4
    failed = {c.key: blank_record(c) for c in probes}
    assert adaptive.next_cells(cells, failed) == []


def test_adaptive_run_plans_only_what_it_ran(tmp_path: Path) -> None:
    grid = grid_from_mapping({
        "tasks": [{"name": "digits", "train_size": 300, "epochs": 4}], "attacks": ["badnets"],
        "doses": [0, 5, 20, 80, 160], "defenses": ["none"], "seeds": [0],
    })  # fmt: skip
    store = Store(tmp_path)
    settings = Settings(store=str(tmp_path), threads=1)
    events = [e for e in execute_adaptive(make_plan(grid, store), settings, jobs=0) if isinstance(e, Ended)]
    assert 2 <= len(events) <= 3
    assert count_cells(store)["pending"] == 0
    assert len(load_all(store)) == len(events)
    assert list(execute_adaptive(make_plan(grid, store), settings, jobs=0)) == [], "run again, nothing is left"
