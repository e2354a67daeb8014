"""Plan a grid against a store, and run what is missing."""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import executors, ledger, records
from harness.executors import Event
from harness.grid import Cell, Grid, expand, groups
from harness.limits import chosen
from harness.records import Record
from harness.store import Store
from harness.work import Settings, code


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


def plan(grid: Grid, store: Store, retry: bool = False, only: Sequence[str] = (), skip: Sequence[str] = ()) -> Plan:
    """Expand the grid and look up by file name what is done; `retry` takes failed and timed-out cells again.

    only, skip: see harness.limits.chosen.
    """
    cells = chosen(expand(grid), only, skip)
    have = records.recorded_keys(store)
    if retry:
        found = records.load_all(store)
        have = {k for k in have if k in found and found[k].status in ("done", "not applicable")}
    return Plan(grid, cells, [c for c in cells if c.key not in have])


def execute(todo: Plan, settings: Settings, jobs: int) -> Generator[Event, None, None]:
    """Run the missing cells; jobs = 0 runs them in this process. Records are on disk when their event comes."""
    store = Store(Path(settings.store))
    cells = [{"key": c.key, "label": c.label} for c in todo.cells]
    records.write_plan(store, asdict(todo.grid), cells)
    with ledger.opened(store.root) as book:
        book.append("run", about={"by": by(), "grid": asdict(todo.grid), "to_run": len(cells), **code()})
    missing = list(groups(todo.todo))
    if missing:
        yield from executors.run_workers(missing, settings, jobs) if jobs else executors.run_inline(missing, settings)


def by() -> str:
    """user@host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = "?"
    return f"{user}@{platform.node()}"


def execute_adaptive(todo: Plan, settings: Settings, jobs: int) -> Generator[Event, None, None]:
    """Run only the cells that `harness.adaptive` asks for, round after round; the plan on disk grows with them."""
    from harness import adaptive

    store = Store(Path(settings.store))
    while True:
        found = records.load_all(store)
        following = adaptive.wanted(todo.cells, found)
        chosen = [c for c in todo.cells if c.key in found] + following
        yield from execute(Plan(todo.grid, chosen, following), settings, jobs)
        if not following:
            return


def estimate(todo: Plan, store: Store) -> float | None:
    """Seconds of work left, from the mean of timed cells of the same task and defense, of the task, or of all."""
    times: dict[tuple[str, ...], list[float]] = {}
    for record in records.load_all(store).values():
        if record.status == "done":
            task, defense = record.task.label, record.defense.label
            for at in ((task, defense), (task,), ()):
                times.setdefault(at, []).append(record.seconds["total"])
    if not times:
        return None

    def mean(cell: Cell) -> float:
        seen = next(times[at] for at in ((cell.task.label, cell.defense.label), (cell.task.label,), ()) if at in times)
        return sum(seen) / len(seen)

    return sum(mean(c) for c in todo.todo)


def default_jobs(device: str) -> int:
    """One worker per core, 8 at most; one on a GPU."""
    import torch

    gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return 1 if gpu else min(8, os.cpu_count() or 1)


def relevant(todo: Plan, store: Store) -> list[Record]:
    """The records of this plan's cells, in the plan's order."""
    found = records.load_all(store)
    return [found[c.key] for c in todo.cells if c.key in found]


def folder(source: str, out: Path | None) -> Path:
    return out or Path("runs") / Path(source).stem
