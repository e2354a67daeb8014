"""A real grid, as a user runs it: three modalities and a generator, each attack undefended and behind four defenses."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from gpu.stage import Stage
from gpu.victims import SIZES, load_tasks
from harness.grid.read import read_grid
from harness.run.plan import make_plan
from harness.store.folder import Store
from harness.store.records import load_all

NAMES = ("digits", "fashion_mnist", "sst2", "fsdd", "digits_generator")
WHOLE = 4800  # cells of a grid that a paper needs
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
    for seeds in ("[0]", "[0,1]" if stage.shrink else "[0,1,2,3,4]"):
        run("run", file, "--out", folder, "--device", stage.device.type, "--set", f"seeds={seeds}",
            "--time-budget", f"{max(5, int(stage.left))}s")  # fmt: skip
    seconds = time.monotonic() - start
    records = list(load_all(Store(folder)).values())
    done, failed = (sum(r.status in status for r in records) for status in (("done",), ("failed", "timed out")))
    planned = len(make_plan(read_grid(str(file), ["seeds=[0,1,2,3,4]"]), Store(folder)).cells)
    stage.figures.add("cells done", done, "cells", planned=planned)
    stage.figures.add("failed or timed out", failed, "cells", planned=planned)
    stage.figures.add("rate", 3600 * done / seconds, "cells/h", planned=planned)
    stage.figures.add(f"{WHOLE} cells take", WHOLE * seconds / max(1, done) / 3600, "h", planned=planned)
    for name in sorted({record.task.name for record in records}):
        of_task = [record for record in records if record.task.name == name and record.status == "done"]
        stage.figures.add("cells", len(of_task), "cells", task=name)
        for step in ("poison", "defend", "grade", "total"):
            mean = sum(record.seconds.get(step, 0.0) for record in of_task) / max(1, len(of_task))
            stage.figures.add(step, mean, "s a cell", task=name)
    run("report", folder, "--csv", stage.work / "grid.csv")
    shutil.copy(stage.work / "grid.csv", stage.figures.path.parent / "grid.csv")


def choose() -> list[dict[str, Any]]:
    """The tasks whose data is here."""
    there = {name for name, _, _ in load_tasks(shrink=False)}
    return [{"name": name, **SIZES.get(name, {})} for name in NAMES if name in there]


def run(*words: object) -> None:
    """A command of the project, whose output goes to the campaign's log; a failed cell is no failed command here."""
    subprocess.run([sys.executable, "-m", "harness.cli", *map(str, words)], check=False, cwd=Path(__file__).parents[2])
