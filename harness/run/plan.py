"""Plan a grid against a store, and run what is missing."""

from __future__ import annotations

import getpass
import os
import platform
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from harness.errors import BadGrid
from harness.grid.grid import Cell, Grid, expand, groups, plugin_names
from harness.grid.select import cells_of_shard, select_cells
from harness.run import memory, workers
from harness.run.event import Event
from harness.run.record_cell import Settings, code
from harness.store import ledger, records
from harness.store.folder import Store
from harness.store.open import opened

if TYPE_CHECKING:
    import pandas as pd

    from harness.run.ray_tasks import Cluster


@dataclass(frozen=True)
class Plan:
    """The cells of a grid, and those that have no record yet."""

    grid: Grid
    cells: list[Cell]
    todo: list[Cell]

    @property
    def victims(self) -> int:
        """Undefended victims that the missing cells stand on; dose 0 is one victim, whatever the attack."""
        return len({(c.task, c.attack if c.dose else None, c.dose, c.seed) for c in self.todo})


def settings_of(
    todo: Plan,
    store: Store,
    jobs: int,
    device: str,
    deterministic: bool = False,
    compiled: bool = False,
    gpus: tuple[str, ...] = (),
) -> Settings:
    """How the missing cells are run, by `jobs` workers. Raises BadGrid; BadPlugin for a class they could not import."""
    from harness.plugins import custom

    if jobs < 0:
        raise BadGrid(f"jobs={jobs}: 0 runs in this process, 1 or more in so many workers")
    if device not in get_args(memory.Device):
        raise BadGrid(f"device={device!r}: valid are {', '.join(get_args(memory.Device))}")
    return Settings(
        store=str(store.root), device=device, timeout=todo.grid.timeout, deterministic=deterministic,
        compiled=compiled, plugins=custom.sources(plugin_names(todo.todo), jobs), gpus=gpus,
    )  # fmt: skip


def plan(
    grid: Grid, store: Store, retry: bool = False, only: Sequence[str] = (), skip: Sequence[str] = (),
    shard: tuple[int, int] = (0, 1),
) -> Plan:  # fmt: skip
    """Expand the grid and look up what is recorded; `retry` takes failed and timed-out cells again.

    only, skip: see harness.grid.select.select_cells; shard: see cells_of_shard there.
    """
    cells = cells_of_shard(select_cells(expand(grid), only, skip), *shard)
    from harness.report.cells import cell_table

    found = cell_table(store)
    settled = found[found.status.isin(records.SETTLED)] if retry and len(found) else found
    have = set(settled.key) if len(settled) else set()
    return Plan(grid, cells, [c for c in cells if c.key not in have])


def execute(
    todo: Plan, settings: Settings, jobs: int, cluster: Cluster | None = None
) -> Generator[Event | None, None, None]:
    """Run the missing cells, on Ray if a cluster is given; without one, jobs = 0 runs them in this process.

    Records are on disk when their event comes. None: for a second nothing has happened.
    """
    store, missing = opened(settings.store), list(groups(todo.todo))
    records.write_plan(store, asdict(todo.grid), [c.columns for c in todo.cells])
    with ledger.opened(store.root) as book:
        book.append("run", about={"by": by(), "grid": asdict(todo.grid), "to_run": len(todo.todo), **code()})
    store.push()
    outcome: Counter[str] = Counter()
    datasets: dict[str, str] = {}
    try:
        for event in _events(missing, settings, jobs, cluster):
            if event and event.record:
                outcome[event.record.status] += 1
                datasets[event.record.task.label] = event.record.dataset_fingerprint
            yield event
    finally:
        with ledger.opened(store.root) as book:
            book.append("ended", about={"by": by(), "cells": dict(outcome), "datasets": datasets})
        store.push()
        store.pull()


def _events(
    missing: list[list[Cell]], settings: Settings, jobs: int, cluster: Cluster | None
) -> Generator[Event | None, None, None]:
    if missing and cluster:
        from harness.run.ray_tasks import run_ray

        yield from run_ray(missing, settings, jobs, cluster)
    elif missing:
        yield from workers.run_workers(missing, settings, jobs) if jobs else workers.run_inline(missing, settings)


def by() -> str:
    """user@host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = "?"
    return f"{user}@{platform.node()}"


def execute_adaptive(
    todo: Plan, settings: Settings, jobs: int, cluster: Cluster | None = None
) -> Generator[Event | None, None, None]:
    """Run only the cells that `harness.run.adaptive` asks for, round after round; the plan on disk grows with them."""
    from harness.run import adaptive

    store = opened(settings.store)
    while True:
        found = records.load_all(store)
        following = adaptive.wanted(todo.cells, found)
        present = [c for c in todo.cells if c.key in found] + following
        yield from execute(Plan(todo.grid, present, following), settings, jobs, cluster)
        if not following:
            return


def estimate(todo: Plan, store: Store) -> float | None:
    """Seconds of work left, from the mean of timed cells of the same task and defense, of the task, or of all."""
    from harness.report.cells import cell_table

    found = cell_table(store)
    done = found[found.status == "done"] if len(found) else found
    if not len(done):
        return None
    overall = done.seconds.mean()
    of_task = done.groupby("task").seconds.mean().to_dict()
    of_both = done.groupby(["task", "defense"]).seconds.mean().to_dict()
    pairs = ((cell.task.label, cell.defense.label) for cell in todo.todo)
    return float(sum(of_both.get(pair, of_task.get(pair[0], overall)) for pair in pairs))


def chosen_gpus(device: str, most: int | None = None) -> tuple[str, ...]:
    """GPUs that workers are dealt over: all that are visible, or the first so many; none on the CPU. Raises BadGrid."""
    seen = memory.visible() if device != "cpu" else ()
    if device == "cuda" and not seen:
        raise BadGrid("device cuda: no GPU is visible here; use device cpu, or auto, which takes a GPU if there is one")
    if most is not None and most > len(seen):
        why = "is for --device cuda" if device == "cpu" else f"visible are {', '.join(seen) or 'none'}"
        raise BadGrid(f"--gpus {most}: {why}")
    return seen[:most]


def default_jobs(gpus: tuple[str, ...], store: Store) -> int:
    """One worker per core, 8 at most. On a GPU as many as fit by what recorded cells took; one before the first."""
    if not gpus:
        return min(8, os.cpu_count() or 1)
    room = min((gpu.total - gpu.used for gpu in memory.gpus(gpus)), default=0)
    fit = len(gpus) * memory.workers_that_fit(records.gpu_peaks(store), room)
    return min(os.cpu_count() or 1, 8 * len(gpus), fit)


def relevant(todo: Plan, store: Store) -> pd.DataFrame:
    """The recorded cells of this plan, in the plan's order, as `harness.report.cells.cells_frame` has them."""
    from harness.report.cells import cell_table

    return cell_table(store, (c.key for c in todo.cells))


def folder(source: str, out: str) -> str:
    return out or str(Path("runs") / Path(source).stem)
