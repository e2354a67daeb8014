"""How much of a grid is run: for how long, with how many failures."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

import pytest

from harness.errors import BadGrid
from harness.grid.grid import Cell, expand
from harness.grid.mapping import grid_from_mapping
from harness.run.budget import Budget, parse_duration
from harness.run.event import Began, Ended, Event, Idle
from harness.run.execute import execute
from harness.run.plan import make_plan
from harness.run.record_cell import blank_record
from harness.run.settings import Settings
from harness.store.folder import Store
from harness.store.records import load_all

GRID = {
    "tasks": ["digits", "synthetic_tones"], "attacks": ["badnets", "tone_clip"], "doses": [0, 5],
    "defenses": ["none", "oracle"], "seeds": [0, 1],
}  # fmt: skip


def test_times_as_people_write_them() -> None:
    assert [parse_duration(t) for t in ("2h", "1h30m", "90s", "5m10s")] == [7200, 5400, 90, 310]
    for wrong in ("", "2", "h", "2x", "-5m", "0s"):
        with pytest.raises(BadGrid, match="--time-budget"):
            parse_duration(wrong)


def failing(cells: list[Cell], closed: list[bool]) -> Generator[Event, None, None]:
    try:
        for cell in cells:
            yield Began(cell)
            yield Ended(cell, blank_record(cell))
    finally:
        closed.append(True)


def test_a_run_ends_at_so_many_failures_and_its_workers_are_stopped() -> None:
    closed: list[bool] = []
    budget = Budget(failures=3)
    events = list(budget.enforce(failing(expand(grid_from_mapping(GRID)), closed)))
    assert sum(isinstance(event, Ended) for event in events) == 3
    assert "3 cells failed" in budget.stop_reason
    assert closed == [True]
    forever, cells = Budget(), expand(grid_from_mapping(GRID))
    assert len(list(forever.enforce(failing(cells, closed)))) == 2 * len(cells)
    assert forever.stop_reason == ""


def waiting(closed: list[bool]) -> Generator[Event, None, None]:
    """A cell that never ends, as seen by the driver of its worker."""
    try:
        while True:
            time.sleep(0.01)
            yield Idle()
    finally:
        closed.append(True)


def test_the_time_is_up_also_while_no_cell_ends() -> None:
    closed: list[bool] = []
    budget = Budget(seconds=0.05)
    assert list(budget.enforce(waiting(closed))) == []
    assert "the time is up" in budget.stop_reason
    assert closed == [True]


def test_a_run_ends_when_its_time_is_up_and_goes_on_later(tmp_path: Path) -> None:
    tasks = [{"name": "digits", "train_size": 150, "epochs": 1, "reserve_size": 60}]
    grid = grid_from_mapping({**GRID, "tasks": tasks, "attacks": ["badnets"], "seeds": [0]})
    store, settings = Store(tmp_path), Settings(store=str(tmp_path), threads=1)
    budget = Budget(seconds=1e-9)
    list(budget.enforce(execute(make_plan(grid, store), settings, jobs=0)))
    assert "time is up" in budget.stop_reason
    assert len(load_all(store)) < 4
    list(Budget().enforce(execute(make_plan(grid, store), settings, jobs=0)))
    assert len(load_all(store)) == 4
