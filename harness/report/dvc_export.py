"""A run's folder as DVC sees it: a stage that runs the grid, what it measured, its curves, the data it stands on.

Data is pinned twice: by data.lock, the fingerprints of the training sets, and, where it lies in the repository, as a
dependency, whose hash DVC has in its pointer and in dvc.lock.
"""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from harness.grid.mapping import grid_from_plan
from harness.plugins.registry import create
from harness.store import records
from harness.store.folder import Store, write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from harness.report.tables import Tables

TEMPLATE = "tinydrop_doses.json"
MEASURED = ("asr", "utility")  # by dose
CURVES = {
    "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
    "data": {"values": "<DVC_METRIC_DATA>"},
    "title": "<DVC_METRIC_TITLE>",
    "transform": [{"calculate": "datum.task + ' / ' + datum.attack", "as": "curve"}],
    "facet": {"field": "curve", "type": "nominal", "title": None, "header": {"labelLimit": 260}},
    "columns": 3,
    "spec": {
        "width": 260,
        "height": 180,
        "mark": {"type": "line", "point": True, "tooltip": {"content": "data"}},
        "encoding": {
            "x": {"field": "<DVC_METRIC_X>", "type": "quantitative", "title": "<DVC_METRIC_X_LABEL>"},
            "y": {
                "field": "<DVC_METRIC_Y>", "type": "quantitative", "title": "<DVC_METRIC_Y_LABEL>",
                "scale": {"domain": [0, 1]},
            },
            "color": {"field": "defense", "type": "nominal"},
            "strokeDash": {"field": "rev", "type": "nominal"},
        },
    },
}  # fmt: skip


def write(store: Store, plugins: list[str]) -> list[Path]:
    """grid.yaml (if there is none), data.lock, dvc.yaml, and the template of the curves in the repository's .dvc/plots.

    plugins: files or module:Class that the run needs. Raises FileNotFoundError where there is no run, or no DVC
    repository above it.
    """
    folder = store.root
    grid = records.read_planned_grid(store)
    home = _repository(folder)
    data = [path for path in data_of(store) if path.is_relative_to(home)]
    files = {
        folder / "data.lock": _json(fingerprints(store)),
        folder / "dvc.yaml": yaml.safe_dump(_pipeline(folder, plugins, data), sort_keys=False),
        home / ".dvc" / "plots" / TEMPLATE: _json(CURVES),
    }
    if not (folder / "grid.yaml").exists():
        files[folder / "grid.yaml"] = yaml.safe_dump(_tidy(grid), sort_keys=False)
    for path, text in files.items():
        write_atomically(path, text)
    return list(files)


def fingerprints(store: Store) -> dict[str, str]:
    """Of the clean training set of every task of the run, as the newest records have it."""
    found = records.load_all(store)
    recorded = [found[cell["key"]] for cell in records.read_plan(store) if cell["key"] in found]
    return {r.task.label: r.dataset_fingerprint for r in recorded if r.dataset_fingerprint}


def data_of(store: Store) -> list[Path]:
    """Folders and files that the tasks of the run read, in TINYDROP_DATA or named by options: DVC pins those it tracks.

    Every task is loaded once. What is not there now is left out; data.lock has its fingerprint.
    """
    from tasks import data
    from tasks.base import Task
    from tasks.plugin import BadInput

    found: set[Path] = set()
    data.read_from.clear()
    grid = grid_from_plan(records.read_planned_grid(store))
    for spec in dict.fromkeys(spec for part in (grid, *grid.also) for spec in part.tasks):
        with suppress(BadInput):
            task = cast(Task, create("tasks", spec.name, dict(spec.options)))
            found |= {Path(file).resolve() for file in task.files()}
            task.load()
    return sorted(found | data.read_from)


def moved(store: Store) -> Iterator[tuple[str, str, str]]:
    """Tasks whose data is not what data.lock says: task, fingerprint there, fingerprint in the records."""
    path = store.root / "data.lock"
    try:
        locked = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError:  # it is written anew
        return
    for task, now in fingerprints(store).items():
        before = locked.get(task, now) if isinstance(locked, dict) else now
        if before != now:
            yield task, str(before), now


def metrics(found: Tables) -> str:
    """What `dvc metrics` reads: JSON, task -> attack -> defense -> ED50 and ASR and clean metric at every dose."""
    tree: dict[str, Any] = {}

    def put(row: pd.Series, name: str, value: float) -> None:
        if math.isfinite(value):
            of_task = tree.setdefault(row.task, {})
            of_task.setdefault(row.attack, {}).setdefault(row.defense, {})[name] = float(f"{value:.6g}")

    for _, row in found.summary.iterrows():
        for name in MEASURED:
            put(row, f"{name} at {row.dose}", row.get(name, float("nan")))
    for _, row in found.doses.iterrows():
        if not row.get("ed50_censored"):  # a bound is no value to compare
            put(row, "ED50", row.get("ed50", float("nan")))
    return _json(tree)


def _pipeline(folder: Path, plugins: list[str], data: list[Path]) -> dict[str, Any]:
    def relative(path: Path | str) -> str:
        return Path(os.path.relpath(path, folder.resolve())).as_posix()

    files = {p: relative(p) for p in plugins if p.endswith(".py")}
    named = [word for plugin in plugins for word in ("--plugin", files.get(plugin, plugin))]
    words = ["tinydrop", "run", "grid.yaml", "--out", ".", *named]
    plot = {"template": TEMPLATE, "x": "dose", "y": {"report/summary.csv": "asr"}}
    stage = {
        "cmd": shlex.join(words),
        "deps": ["grid.yaml", "data.lock", *files.values(), *map(relative, data)],
        "outs": [{f"report/summary.{ending}": {"cache": False}} for ending in ("csv", "json")],
        "metrics": [{"report/metrics.json": {"cache": False}}],
    }
    return {"stages": {"run": stage}, "plots": [{"ASR by dose": plot}]}


def _repository(folder: Path) -> Path:
    for parent in (folder.resolve(), *folder.resolve().parents):
        if (parent / ".dvc").is_dir():
            return parent
    raise FileNotFoundError(
        f"DIR: {str(folder)!r} is in no DVC repository; `git init && dvc init` above it first "
        '(pip install "tinydrop[dvc]")'
    )


def _tidy(grid: dict[str, Any]) -> dict[str, Any]:
    """As a user writes it: plug-ins without options by name, and nothing that is empty."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return value["name"] if set(value) == {"name"} else {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    return {field: plain(value) for field, value in grid.items() if value not in ("", [], ())}


def _json(tree: Any) -> str:
    return json.dumps(tree, indent=1, sort_keys=True) + "\n"
