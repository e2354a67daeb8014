"""A real grid, as a user runs it: three modalities and a generator, each attack undefended and behind four defenses."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from gpu.stage import Stage
from gpu.victims import SIZES, load_tasks
from harness.grid.read import read_grid
from harness.run.plan import make_plan
from harness.store.folder import Store
from harness.store.records import Record, load_all

NAMES = ("digits", "fashion_mnist", "sst2", "fsdd", "digits_generator")
WHOLE = 4800  # cells of a grid that a paper needs
FIRST, ALL = "seeds=[0]", "seeds=[0,1,2,3,4]"
REPORT = 25  # seconds kept for the end of a run and its tables
GRID: dict[str, Any] = {
    "attacks": ["badnets", "blended", "badwords", "tone_clip", "conditional_trigger"],
    "doses": [0, 2, 5, 10, 20, 50],
    "defenses": ["none", "activation_clustering", "spectral_signatures", "fine_tuning", "strip"],
    "timeout": 120,
}
SHRUNK: dict[str, Any] = {
    "tasks": [{"name": "digits", "train_size": 200, "epochs": 2, "test_size": 50, "reserve_size": 50}],
    "attacks": ["badnets"], "doses": [0, 5], "defenses": ["none", "fine_tuning"], "timeout": 120,
}  # fmt: skip


def measure(stage: Stage) -> None:
    """Seed 0 of every curve first, then more seeds as long as there is time."""
    grid = SHRUNK if stage.shrink else {**GRID, "tasks": choose()}
    file, folder = stage.work / "campaign.yaml", stage.work / "run"
    file.write_text(yaml.safe_dump({"description": "What a campaign runs on a GPU.", **grid, "seeds": [0]}))
    start = time.monotonic()
    for seeds in (FIRST,) if stage.shrink else (FIRST, ALL):
        if stage.left > 2 * REPORT:
            run("run", file, "--out", folder, "--device", stage.device.type, "--set", seeds,
                "--time-budget", f"{stage.left - REPORT:.0f}s")  # fmt: skip
    seconds = time.monotonic() - start
    records = list(load_all(Store(folder)).values())
    done, failed = (sum(r.status in status for r in records) for status in (("done",), ("failed", "timed out")))
    planned = len(make_plan(read_grid(str(file), [ALL]), Store(folder)).cells)
    of = {"grid": f"{planned} cells"}
    stage.figures.add("done", done, "cells", **of)
    stage.figures.add("failed or timed out", failed, "cells", **of)
    stage.figures.add("starts included", 3600 * done / seconds, "cells/h", **of)
    rate = rate_at_work([record for record in records if record.seed == 0])
    stage.figures.add("while workers run", 3600 * rate, "cells/h", **of)
    if rate:
        stage.figures.add(f"{WHOLE} cells take", WHOLE / rate / 3600, "h", **of)
    for name in sorted({record.task.name for record in records}):
        of_task = [record for record in records if record.task.name == name and record.status == "done"]
        stage.figures.add("cells", len(of_task), "cells", task=name)
        for step in ("poison", "defend", "grade", "total"):
            mean = sum(record.seconds.get(step, 0.0) for record in of_task) / max(1, len(of_task))
            stage.figures.add(step, mean, "s a cell", task=name)
    run("report", folder, "--csv", stage.work / "grid.csv")
    shutil.copy(stage.work / "grid.csv", stage.figures.path.parent / "grid.csv")


def rate_at_work(records: list[Record]) -> float:
    """Cells a second from the begin of the first to the end of the last; 0 for none."""
    begins = [datetime.fromisoformat(record.started).timestamp() for record in records]
    ends = [begin + record.seconds["total"] for begin, record in zip(begins, records, strict=True)]
    return len(records) / max(1.0, max(ends) - min(begins)) if records else 0.0


def choose() -> list[dict[str, Any]]:
    """The tasks whose data is here."""
    return [{"name": name, **SIZES.get(name, {})} for name, _, _ in load_tasks(NAMES, shrink=False)]


def run(*words: object) -> None:
    """A command of the project, whose output goes to the campaign's log; a failed cell is no failed command here."""
    subprocess.run([sys.executable, "-m", "harness.cli", *map(str, words)], check=False, cwd=Path(__file__).parents[2])
