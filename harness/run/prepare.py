"""One way to run a grid, for `tinydrop run`, `tinydrop retry` and Python: plan it, prepare the plan, carry it out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pandas as pd

from harness.cell.speedup import Speedup
from harness.console import out, quote
from harness.errors import BadGrid
from harness.grid.grid import plugin_names
from harness.grid.mapping import check_timeout
from harness.plugins import custom
from harness.run import memory
from harness.run.adaptive import next_cells
from harness.run.budget import Budget
from harness.run.event import Ended
from harness.run.execute import execute, execute_adaptive
from harness.run.live import show_progress
from harness.run.opening import open_tasks, refuse_output_among_data
from harness.run.plan import Plan, recorded_cells
from harness.run.ray_tasks import Cluster
from harness.run.script import refuse_unguarded_script
from harness.run.settings import Device, Settings
from harness.store import records
from harness.store.folder import Store
from harness.store.records import Record

MOST_JOBS = 1000


@dataclass(frozen=True)
class PreparedRun:
    """A plan, and how and where its missing cells run."""

    plan: Plan
    store: Store
    settings: Settings
    jobs: int
    cluster: Cluster | None = None

    def open_tasks(self, adaptive: bool = False) -> None:
        """Read the data of every task that has cells to run, before anything is recorded.

        On Ray nothing is read: the data may be on other machines only. Raises BadGrid.
        """
        if self.cluster is None:
            missing = next_cells(self.plan.cells, records.load_all(self.store)) if adaptive else self.plan.missing
            refuse_output_among_data(missing, self.store.root)
            open_tasks(missing, self.plan.cells, keep=not self.jobs)

    def carry_out(
        self, adaptive: bool = False, budget: Budget | None = None, on_record: Callable[[Record], None] | None = None
    ) -> pd.DataFrame:
        """Run the missing cells and show the progress. Returns all recorded cells of the plan.

        adaptive: bisect the doses instead of running all; on_record: called with every new record.
        """
        start = execute_adaptive if adaptive else execute
        events = start(self.plan, self.settings, self.jobs, self.cluster)
        with show_progress(out, len(self.plan.missing)) as progress:
            for event in (budget or Budget()).enforce(events):
                progress.update(event)
                if on_record and isinstance(event, Ended):
                    on_record(event.record)
        return recorded_cells(self.plan, self.store)


def prepare(
    plan: Plan, store: Store, *, jobs: int | None = None, device: str = "auto", gpus: int | None = None,
    cluster: Cluster | None = None, timeout: float | None = None, deterministic: bool = False,
    speedup: Speedup = "none",
) -> PreparedRun:  # fmt: skip
    """Check how a plan is to run.

    jobs: worker processes; 0 runs the cells in this process, None takes as many as fit. gpus: share the workers out
    among so many GPUs, or among all. timeout: seconds per cell, the grid's if None. Raises BadGrid, and BadPlugin for a
    class that the workers could not import.
    """
    if jobs is not None and (not isinstance(jobs, int) or isinstance(jobs, bool) or not 0 <= jobs <= MOST_JOBS):
        raise BadGrid(f"jobs={quote(jobs)}: 0 runs in this process, 1 to {MOST_JOBS:,} in so many workers")
    if timeout is not None:
        check_timeout("timeout", timeout)
    if device not in get_args(Device):
        raise BadGrid(f"device={device!r}: valid are {', '.join(get_args(Device))}")
    names = () if cluster else select_gpus(device, gpus)
    check_speedup(speedup, names, cluster)
    jobs = default_jobs(names, store) if jobs is None else jobs
    if jobs and not cluster and plan.missing:
        refuse_unguarded_script(jobs)
    settings = Settings(
        store=str(store.root), device=device, gpus=names, timeout=plan.grid.timeout if timeout is None else timeout,
        deterministic=deterministic, speedup=speedup, plugins=custom.worker_sources(plugin_names(plan.missing), jobs),
    )  # fmt: skip
    return PreparedRun(plan, store, settings, jobs, cluster)


def check_speedup(speedup: str, gpus: tuple[str, ...], cluster: Cluster | None = None) -> None:
    """Raises BadGrid for a speedup that is unknown, or that needs a GPU where there is none."""
    if speedup not in get_args(Speedup):
        raise BadGrid(f"speedup={speedup!r}: valid are {', '.join(get_args(Speedup))}")
    if speedup == "graphs" and not gpus and cluster is None:
        raise BadGrid("speedup graphs: is for GPUs, and victims are trained on the CPU here; leave it out")


def default_folder(grid: str) -> str:
    """Where a run of a preset or a YAML file goes unless a folder is named."""
    return str(Path("runs") / Path(grid).stem)


def select_gpus(device: str, count: int | None = None) -> tuple[str, ...]:
    """The names of the GPUs that workers are shared out among: all visible ones, or the first `count`; none on the CPU.

    Raises BadGrid.
    """
    visible = memory.visible_gpus() if device != "cpu" else ()
    if device == "cuda" and not visible:
        raise BadGrid("device cuda: no GPU is visible here; use device cpu, or auto, which takes a GPU if there is one")
    if count is not None and count > len(visible):
        why = "is for --device cuda" if device == "cpu" else f"visible are {', '.join(visible) or 'none'}"
        raise BadGrid(f"--gpus {count}: {why}")
    return visible[:count]


def default_jobs(gpus: tuple[str, ...], store: Store) -> int:
    """One worker per core, at most 8. On GPUs as many as fit by the memory that recorded cells took, at most 8 each.

    Before the first record a cell is taken to need 4 GiB; one that fails for want of memory runs again alone.
    """
    cores = os.cpu_count() or 1
    if not gpus:
        return min(8, cores)
    room = min((gpu.total - gpu.used for gpu in memory.gpu_memory(gpus)), default=0)
    fitting = len(gpus) * memory.workers_that_fit(records.read_gpu_peaks(store), room)
    return min(cores, 8 * len(gpus), fitting)
