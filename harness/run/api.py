"""Running a grid from Python or a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadGrid
from harness.grid.grid import Grid
from harness.grid.mapping import grid_from_mapping, mapping_from_grid
from harness.grid.read import read_mapping
from harness.run.budget import Limits
from harness.run.plan import chosen_gpus, execute, execute_adaptive, folder, plan, relevant, settings_of
from harness.store.open import opened

if TYPE_CHECKING:
    import pandas as pd

    from attacks.base import Attack
    from defenses.base import Defense
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

    grid: a preset's name, the path of a YAML file, or its fields as a mapping; wherever those name a plug-in, an object
    may stand: {"defenses": ["none", MyDefense(k=3)], ...}. tasks, attacks, defenses: on top of the grid's. Nothing has
    to be registered: MyDefense is known as my_defense, and its code counts in every key.
    out: the run's folder or URL, runs/GRID if the grid has a name. Finished cells are there already and not run again.
    jobs: worker processes; 0 runs in this one, which a class defined in a notebook needs. In a script, more than 0
    belong under `if __name__ == "__main__":`.
    retry: run failed and timed-out cells again. adaptive: bisect the doses of every curve for its ED50.

    Raises BadGrid and BadPlugin, in one line; a cell that fails is a row that says why.
    """
    from harness.console import out as console
    from harness.run.live import watching

    if isinstance(grid, str | Path):
        tree, name = read_mapping(str(grid)), str(grid)
    elif out is None:
        raise BadGrid("out: missing; name the folder that keeps the records, e.g. out='runs/mine'")
    else:
        tree, name = mapping_from_grid(grid) if isinstance(grid, Grid) else dict(grid), ""
    for kind, further in (("tasks", tasks), ("attacks", attacks), ("defenses", defenses)):
        if further:
            here = tree.get(kind, [])
            tree[kind] = [*(here if isinstance(here, list | tuple) else [here]), *further]
    store = opened(folder(name, str(out or "")))
    store.pull()
    todo = plan(grid_from_mapping(tree), store, retry)
    settings = settings_of(todo, store, jobs, device, gpus=chosen_gpus(device))
    with watching(console, len(todo.todo)) as watch:
        for event in Limits().watch((execute_adaptive if adaptive else execute)(todo, settings, jobs)):
            watch(event)
    return relevant(todo, store)
