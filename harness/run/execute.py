"""Running the missing cells of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import replace

from harness.grid.grid import Cell, groups
from harness.grid.mapping import mapping_from_grid
from harness.run import adaptive
from harness.run.event import Ended, Event
from harness.run.plan import Plan
from harness.run.provenance import code_version, user_at_host
from harness.run.ray_tasks import Cluster, run_ray
from harness.run.settings import Settings
from harness.run.workers import run_inline, run_workers
from harness.store import ledger, records
from harness.store.open import open_store


def execute(plan: Plan, settings: Settings, jobs: int, cluster: Cluster | None = None) -> Generator[Event, None, None]:
    """Run the missing cells, on Ray if a cluster is given; without one, jobs = 0 runs them in this process."""
    store = open_store(settings.store)
    grid = mapping_from_grid(plan.grid)
    records.write_plan(store, grid, [cell.columns for cell in plan.cells])
    with ledger.open_ledger(store.root) as book:
        about = {"by": user_at_host(), "grid": grid, "to_run": len(plan.missing), **code_version()}
        book.append("run", about=about)
    store.push()
    outcome: Counter[str] = Counter()  # cells by status
    datasets: dict[str, str] = {}  # fingerprints by task
    try:
        for event in _events(list(groups(plan.missing)), settings, jobs, cluster):
            if isinstance(event, Ended):
                outcome[event.record.status] += 1
                datasets[event.record.task.label] = event.record.dataset_fingerprint
            yield event
    finally:
        with ledger.open_ledger(store.root) as book:
            book.append("ended", about={"by": user_at_host(), "cells": dict(outcome), "datasets": datasets})
        store.push()
        store.pull()


def _events(missing: list[list[Cell]], settings: Settings, jobs: int, cluster: Cluster | None) -> Iterator[Event]:
    if not missing:
        return iter(())
    if cluster:
        return run_ray(missing, settings, jobs, cluster)
    return run_workers(missing, settings, jobs) if jobs else run_inline(missing, settings)


def execute_adaptive(
    plan: Plan, settings: Settings, jobs: int, cluster: Cluster | None = None
) -> Generator[Event, None, None]:
    """Run only the cells that `harness.run.adaptive` asks for, round after round; the plan on disk grows with them."""
    store = open_store(settings.store)
    while True:
        recorded = records.load_all(store)
        probes = adaptive.next_cells(plan.cells, recorded)
        present = [cell for cell in plan.cells if cell.key in recorded] + probes
        yield from execute(replace(plan, cells=present, missing=probes), settings, jobs, cluster)
        if not probes:
            return
