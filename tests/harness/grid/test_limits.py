"""A part of a grid: which cells, for how long, with how many failures."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from harness.errors import BadGrid
from harness.grid.grid import Cell, expand
from harness.grid.mapping import grid_from_mapping
from harness.grid.select import select_cells
from harness.run.budget import Limits, parse_duration
from harness.run.event import Event
from harness.run.plan import execute, plan
from harness.run.record_cell import Settings, blank_record
from harness.store.folder import Store
from harness.store.records import load_all

GRID = {
    "tasks": ["digits", "synthetic_tones"], "attacks": ["badnets", "tone_clip"], "doses": [0, 5],
    "defenses": ["none", "oracle"], "seeds": [0, 1],
}  # fmt: skip


def labels(only: Sequence[str] = (), skip: Sequence[str] = ()) -> list[str]:
    return [cell.label for cell in select_cells(expand(grid_from_mapping(GRID)), only, skip)]


def test_cells_are_chosen_by_name_or_label() -> None:
    everything = labels()
    assert labels(["digits"]) == [label for label in everything if label.startswith("digits/")]
    assert labels(["digits", "tone_clip"]) == everything
    assert labels(["*/5/oracle/*"]) == [label for label in everything if "/5/oracle/" in label]
    assert labels(["badnets"], ["oracle", "*/1"]) == ["digits/badnets/0/none/0", "digits/badnets/5/none/0"]
    with pytest.raises(BadGrid, match=r"--skip 'orakle': fits no cell; a cell of this grid is called digits/badnets/0"):
        labels(skip=["orakle"])


def test_times_as_people_write_them() -> None:
    assert [parse_duration(t) for t in ("2h", "1h30m", "90s", "5m10s")] == [7200, 5400, 90, 310]
    for wrong in ("", "2", "h", "2x", "-5m", "0s"):
        with pytest.raises(BadGrid, match="--time-budget"):
            parse_duration(wrong)


def failing(cells: list[Cell], closed: list[bool]) -> Generator[Event, None, None]:
    try:
        for cell in cells:
            yield Event(cell)
            yield Event(cell, blank_record(cell))
    finally:
        closed.append(True)


def test_a_run_ends_at_so_many_failures_and_its_workers_are_stopped() -> None:
    closed: list[bool] = []
    limits = Limits(failures=3)
    events = list(limits.watch(failing(expand(grid_from_mapping(GRID)), closed)))
    assert sum(e.record is not None for e in events) == 3
    assert "3 cells failed" in limits.reached
    assert closed == [True]
    forever = Limits()
    assert len(list(forever.watch(failing(expand(grid_from_mapping(GRID)), closed)))) == 2 * len(labels())
    assert forever.reached == ""


def waiting(closed: list[bool]) -> Generator[None, None, None]:
    """A cell that never ends, as seen by the driver of its worker."""
    try:
        while True:
            time.sleep(0.01)
            yield None
    finally:
        closed.append(True)


def test_the_time_is_up_also_while_no_cell_ends() -> None:
    closed: list[bool] = []
    limits = Limits(seconds=0.05)
    assert list(limits.watch(waiting(closed))) == []
    assert "the time is up" in limits.reached
    assert closed == [True]


def test_a_run_ends_when_its_time_is_up_and_goes_on_later(tmp_path: Path) -> None:
    tasks = [{"name": "digits", "train_size": 150, "epochs": 1, "reserve_size": 60}]
    grid = grid_from_mapping({**GRID, "tasks": tasks, "attacks": ["badnets"], "seeds": [0]})
    store, settings = Store(tmp_path), Settings(store=str(tmp_path), threads=1)
    limits = Limits(seconds=1e-9)
    list(limits.watch(execute(plan(grid, store), settings, jobs=0)))
    assert "time is up" in limits.reached
    assert len(load_all(store)) < 4
    list(Limits().watch(execute(plan(grid, store), settings, jobs=0)))
    assert len(load_all(store)) == 4
