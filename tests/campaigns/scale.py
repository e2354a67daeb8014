"""What a very large grid costs before, between and after its cells:
`PYTHONPATH=. python tests/campaigns/scale.py [cells] [records] [folder]`.

Planning, writing and reading the plan, `status`, and the table of all records, cold and warm, at that size, a tenth and
a hundredth of it; what the harness adds to a cell; a small real grid on one worker, on two, and on Ray. Prints Markdown
tables, and writes steps.csv and steps.png into the folder if one is named.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import yaml
from fault_campaign import tinydrop

from harness.cli.status import count_cells
from harness.grid.grid import Cell, groups
from harness.grid.mapping import grid_from_mapping, mapping_from_grid
from harness.report.cells import cell_table
from harness.run import workers
from harness.run.plan import make_plan
from harness.run.record_cell import blank_record, set_up_process
from harness.run.settings import Settings
from harness.store import records
from harness.store.folder import Store

REAL = {
    "tasks": [{"name": "digits", "epochs": 40}], "attacks": ["badnets", "blended"],
    "doses": [0, 5, 20], "defenses": ["none", "random_filter", "spectral_signatures"], "seeds": [0, 1, 2, 3],
}  # fmt: skip
PLUG = {"name": "digits", "label": "digits", "options": {"train_size": 1000, "epochs": 10}}
GOAL = ("table of new records", 100_000, 10.0)  # seconds it may take


def grid(cells: int) -> dict[str, Any]:
    """A grid of that many cells: 2 attacks x doses x 5 defenses x 10 seeds."""
    return {
        "tasks": ["digits"], "attacks": ["badnets", "blended"], "doses": list(range(cells // 100)),
        "seeds": list(range(10)),
        "defenses": ["none", "oracle", "random_filter", "fine_tuning", "strip"],
    }  # fmt: skip


def write_records(store: Store, count: int) -> None:
    """As a run writes them, of the usual size, but without waiting for the disk."""
    folder = store.root / "records"
    folder.mkdir(parents=True)
    metrics = {f"metric_{i:02}": {"value": i / 20, "n": 1000} for i in range(16)}
    fits = [{"key": f"{i:032x}", "seconds": 1.5, "trained": True} for i in range(3)]
    libraries = {f"library-{i}": "1.2.3" for i in range(8)}
    for i in range(count):
        tree = {
            "key": f"{i:032x}", "label": f"digits/badnets/{i}/none/0", "task": PLUG, "attack": PLUG, "defense": PLUG,
            "modality": "image", "dose": i, "seed": 0, "stage": "control", "status": "done", "metrics": metrics,
            "seconds": {"load": 0.1, "poison": 0.1, "defend": 5.0, "grade": 0.3, "total": 5.5}, "fits": fits,
            "artefacts": [fit["key"] for fit in fits], "provenance": {"commit": "0" * 40, "libraries": libraries},
        }  # fmt: skip
        (folder / f"{i:032x}.json").write_text(json.dumps(tree, indent=1, sort_keys=True))


def steps(cells: int, count: int, told: SimpleQueue[dict[str, Any]]) -> None:
    """Every step once; seconds and the most memory that this process has had by then."""

    def timed(what: str, n: int, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        told.put({"step": what, "n": n, "seconds": time.perf_counter() - start, "peak_mb": peak})
        return result

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "run")
        make_plan(grid_from_mapping(grid(100)), store)  # imports what is needed
        todo = timed("plan of a grid", cells, lambda: make_plan(grid_from_mapping(grid(cells)), store))
        rows = [c.columns for c in todo.missing]
        timed("plan.json written", cells, lambda: records.write_plan(store, mapping_from_grid(todo.grid), rows))
        timed("status, all pending", cells, lambda: count_cells(store))
        write_records(store, count)
        timed("table of new records", count, lambda: cell_table(store))
        timed("table of known records", count, lambda: cell_table(store))


def measured(cells: int, count: int) -> pd.DataFrame:
    """The steps at three sizes, each in a process of its own."""
    told: SimpleQueue[dict[str, Any]] = get_context("fork").SimpleQueue()
    rows = []
    for part in (100, 10, 1):
        process = get_context("fork").Process(target=steps, args=(cells // part, count // part, told))
        process.start()
        rows += [told.get() for _ in range(5)]
        process.join()
    return pd.DataFrame(rows).sort_values(["step", "n"], key=lambda c: c if c.name == "n" else c.map(_order))


def _order(step: str) -> int:
    names = ["plan of a grid", "plan.json written", "status, all pending", "table of new records"]
    return names.index(step) if step in names else len(names)


def draw(found: pd.DataFrame, to: Path) -> None:
    figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
    for step, rows in found.groupby("step", sort=False):
        ax.plot(rows.n, rows.seconds, "o-", label=step)
    ax.plot(*GOAL[1:], "k_", markersize=18, label="asked: 100,000 records in 10 s")
    ax.set(xscale="log", yscale="log", xlabel="cells or records", ylabel="seconds")
    ax.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=9)
    figure.savefig(to, dpi=150)


def overhead(count: int) -> None:
    """Cells that do nothing, in one process and in two: claimed, recorded, entered in the ledger, each on the disk."""
    workers.run_cell = lambda cell, settings, device: blank_record(cell)  # type: ignore[attr-defined]
    set_up_process(Settings(""))  # imports what is needed
    print("\n| processes of one folder | cells that do nothing, a second |\n|---|---|")
    for jobs in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            todo = list(groups(make_plan(grid_from_mapping(grid(count)), Store(Path(folder))).missing))
            shares = [get_context("fork").Process(target=_run, args=(todo[i::jobs], folder)) for i in range(jobs)]
            start = time.perf_counter()
            for share in shares:
                share.start()
            for share in shares:
                share.join()
            print(f"| {jobs} | {count / (time.perf_counter() - start):,.0f} |", flush=True)


def _run(todo: list[list[Cell]], folder: str) -> None:
    for _ in workers.run_inline(todo, Settings(folder)):
        pass


def speed_up() -> None:
    print("\n| 72 real cells | seconds |\n|---|---|")
    for words in (["--jobs", 1], ["--jobs", 2], ["--jobs", 2, "--executor", "ray"]):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "grid.yaml").write_text(yaml.safe_dump(REAL))
            start = time.perf_counter()
            assert tinydrop("run", f"{folder}/grid.yaml", "--out", f"{folder}/run", *words) == 0
            print(f"| `{' '.join(map(str, words))}` | {time.perf_counter() - start:.1f} |", flush=True)


def main(cells: int, count: int, folder: Path | None) -> None:
    found = measured(cells, count)
    print("| step | cells or records | seconds | peak memory so far, MB |\n|---|---|---|---|")
    for row in found.itertuples():
        print(f"| {row.step} | {row.n:,} | {row.seconds:.2f} | {row.peak_mb:,.0f} |", flush=True)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        found.round(3).to_csv(folder / "steps.csv", index=False)
        draw(found, folder / "steps.png")
    overhead(10_000)
    speed_up()


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    main(int(given.get(0, 1_000_000)), int(given.get(1, 100_000)), Path(given[2]) if 2 in given else None)
