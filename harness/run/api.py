"""Running a grid from Python or a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from attacks.base import Attack
from defenses.base import Defense
from harness.console import quote
from harness.errors import BadGrid
from harness.grid.grid import Grid
from harness.grid.mapping import AXES, grid_from_mapping, mapping_from_grid
from harness.grid.read import read_mapping
from harness.run.plan import make_plan
from harness.run.prepare import default_folder, prepare
from harness.store.open import open_output
from tasks.base import Task


def run(
    grid: Grid | dict[str, Any] | str | Path,
    *,
    tasks: Sequence[Task | str] = (),
    attacks: Sequence[Attack | str] = (),
    defenses: Sequence[Defense | str] = (),
    out: Path | str | None = None,
    jobs: int = 0,
    device: str = "auto",
    retry: bool = False,
    adaptive: bool = False,
) -> pd.DataFrame:
    """Run a grid from Python or a notebook, as `tinydrop run` does; one row per cell (see harness.report.cells).

    grid: a preset's name, the path of a YAML file, or its fields as a mapping, in which an object may take the place of
    a plug-in's name: {"defenses": ["none", MyDefense(k=3)], ...}. tasks, attacks, defenses: added to those of the grid.
    Nothing has to be registered: MyDefense is known as my_defense, and its code counts in every key.
    out: the run's folder or URL; runs/GRID if the grid has a name. Cells that are finished there are not run again.
    jobs: worker processes; 0 runs in this one, which a class defined in a notebook needs. In a script, a call with
    more than 0 belongs under `if __name__ == "__main__":`.
    retry: run failed and timed-out cells again. adaptive: bisect the doses of every curve for its ED50.

    Outside of the main thread, jobs=0 runs cells without the grid's `timeout`, which is said.

    Raises BadGrid and BadPlugin, in one line, also for a task whose data cannot be read, before anything is recorded. A
    cell that fails is a row that says why.
    """
    if isinstance(grid, str | Path):
        mapping, name = read_mapping(str(grid)), str(grid)
    elif out is None:
        raise BadGrid("out: missing; name the folder that keeps the records, e.g. out='runs/mine'")
    elif not isinstance(grid, Grid | dict):
        raise BadGrid(
            f"grid: {quote(grid)} is neither a preset's name, nor a path, nor a mapping with {', '.join(AXES)}"
        )
    else:
        mapping, name = mapping_from_grid(grid) if isinstance(grid, Grid) else dict(grid), ""
    for kind, added in (("tasks", tasks), ("attacks", attacks), ("defenses", defenses)):
        if added:
            own = mapping.get(kind, [])
            mapping[kind] = [*(own if isinstance(own, list | tuple) else [own]), *added]
    store = open_output(default_folder(name) if out is None else out, "out")
    store.pull()
    plan = make_plan(grid_from_mapping(mapping), store, retry)
    prepared = prepare(plan, store, jobs=jobs, device=device)
    prepared.open_tasks(adaptive)
    return prepared.carry_out(adaptive)
