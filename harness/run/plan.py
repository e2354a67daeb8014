"""Planning: which cells of a grid have no record yet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from harness.grid.grid import Cell, Grid, expand
from harness.grid.mapping import grid_from_plan
from harness.grid.select import cells_of_shard, select_cells
from harness.report.cells import cell_table
from harness.store import records
from harness.store.folder import Store


@dataclass(frozen=True)
class Plan:
    """The cells of a grid, and those that are still to run."""

    grid: Grid
    cells: list[Cell]
    missing: list[Cell]
    recorded: pd.DataFrame  # the store's cell table when the plan was made

    @property
    def victims(self) -> int:
        """Undefended victims that the missing cells need; dose 0 is one victim, whatever the attack."""
        return len({(c.task, c.attack if c.dose else None, c.dose, c.seed) for c in self.missing})

    def estimate_seconds(self) -> float | None:
        """Seconds of work left, from the mean time of recorded cells with the same task and defense, or else with the
        same task, or else of all; None before the first cell is done."""
        done = self.recorded[self.recorded.status == "done"] if len(self.recorded) else self.recorded
        if not len(done):
            return None
        overall = done.seconds.mean()
        of_task = done.groupby("task").seconds.mean().to_dict()
        of_both = done.groupby(["task", "defense"]).seconds.mean().to_dict()
        pairs = ((cell.task.label, cell.defense.label) for cell in self.missing)
        return float(sum(of_both.get(pair, of_task.get(pair[0], overall)) for pair in pairs))


def make_plan(
    grid: Grid, store: Store, retry: bool = False, only: Sequence[str] = (), skip: Sequence[str] = (),
    shard: tuple[int, int] = (0, 1),
) -> Plan:  # fmt: skip
    """Expand the grid and look up what is recorded. `retry` counts failed and timed-out cells as missing.

    only, skip: see harness.grid.select.select_cells; shard: see cells_of_shard there.
    """
    cells = cells_of_shard(select_cells(expand(grid), only, skip), *shard)
    recorded = cell_table(store)
    settled = recorded[recorded.status.isin(records.SETTLED)] if retry and len(recorded) else recorded
    keys = set(settled.key) if len(settled) else set()
    return Plan(grid, cells, [cell for cell in cells if cell.key not in keys], recorded)


def plan_retry(store: Store, statuses: Collection[str]) -> Plan:
    """The newest plan of a run's folder; its cells with one of these statuses are missing, and run with today's code.

    The others keep the keys that they were recorded under, perhaps by older code.
    """
    grid = grid_from_plan(records.read_planned_grid(store))
    planned = {cell["label"]: cell["key"] for cell in records.read_plan(store)}
    recorded = cell_table(store)
    status = dict(zip(recorded.key, recorded.status)) if len(recorded) else {}
    cells, missing = [], []
    for cell in (cell for cell in expand(grid) if cell.label in planned):
        again = status.get(planned[cell.label]) in statuses
        cells.append(cell if again else replace(cell, key=planned[cell.label]))
        missing += [cell] * again
    return Plan(grid, cells, missing, recorded)


def recorded_cells(plan: Plan, store: Store) -> pd.DataFrame:
    """The cells of this plan that are recorded now, in the plan's order, as harness.report.cells has them."""
    return cell_table(store, (cell.key for cell in plan.cells))
