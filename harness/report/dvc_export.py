"""A run folder for DVC: a stage that runs the grid, its metrics and curves, and the data that it depends on.

Data is pinned twice: by data.lock, which holds the fingerprints of the training sets, and, where the data lies in the
repository, as a dependency, whose hash DVC keeps in its pointer and in dvc.lock.
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
METRICS = ("asr", "utility")  # given for every dose
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
    """Write grid.yaml (if there is none), data.lock and dvc.yaml, and the plots' template into .dvc of the repository.

    plugins: files or module:Class that the run needs. Raises FileNotFoundError where there is no run, or no DVC
    repository above it.
    """
    folder = store.root
    grid = records.read_planned_grid(store)
    repository = _find_repository(folder)
    data = [path for path in data_paths(store) if path.is_relative_to(repository)]
    files = {
        folder / "data.lock": _json(fingerprints(store)),
        folder / "dvc.yaml": yaml.safe_dump(_pipeline(folder, plugins, data), sort_keys=False),
        repository / ".dvc" / "plots" / TEMPLATE: _json(CURVES),
    }
    if not (folder / "grid.yaml").exists():
        files[folder / "grid.yaml"] = yaml.safe_dump(_simplify(grid), sort_keys=False)
    for path, text in files.items():
        write_atomically(path, text)
    return list(files)


def fingerprints(store: Store) -> dict[str, str]:
    """The fingerprint of every task's clean training set, by the task's label, from the newest records of the run."""
    newest = records.load_all(store)
    recorded = [newest[cell["key"]] for cell in records.read_plan(store) if cell["key"] in newest]
    return {r.task.label: r.dataset_fingerprint for r in recorded if r.dataset_fingerprint}


def data_paths(store: Store) -> list[Path]:
    """Folders and files that the tasks of the run read, in TINYDROP_DATA or named by options: DVC pins those it tracks.

    Data that is not there now is left out; data.lock has its fingerprint.
    """
    from tasks.base import Task  # imported late: torch, which `tinydrop report` need not load
    from tasks.files import group_parts  # imported late: likewise
    from tasks.plugin import BadInput  # imported late: likewise

    paths: set[Path] = set()
    grid = grid_from_plan(records.read_planned_grid(store))
    for spec in dict.fromkeys(spec for part in (grid, *grid.also) for spec in part.tasks):
        with suppress(BadInput):
            task = cast(Task, create("tasks", spec.name, dict(spec.options)))
            paths |= {Path(top).resolve() for top in group_parts(task.files())}
    return sorted(paths)


def list_changed_data(store: Store) -> Iterator[tuple[str, str, str]]:
    """Tasks whose data is not what data.lock says: task, fingerprint there, fingerprint in the records."""
    path = store.root / "data.lock"
    try:
        locked = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError:  # damaged: `write` replaces it
        return
    for task, now in fingerprints(store).items():
        before = locked.get(task, now) if isinstance(locked, dict) else now
        if before != now:
            yield task, str(before), now


def metrics_json(tables: Tables) -> str:
    """What `dvc metrics` reads: JSON, task -> attack -> defense -> ED50, and ASR and clean metric at every dose."""
    tree: dict[str, Any] = {}

    def put(row: pd.Series, name: str, value: float) -> None:
        if math.isfinite(value):
            by_attack = tree.setdefault(row.task, {})
            by_attack.setdefault(row.attack, {}).setdefault(row.defense, {})[name] = float(f"{value:.6g}")

    for _, row in tables.summary.iterrows():
        for name in METRICS:
            put(row, f"{name} at {row.dose}", row.get(name, float("nan")))
    for _, row in tables.doses.iterrows():
        if not row.get("ed50_censored"):  # a bound is not a value to compare
            put(row, "ED50", row.get("ed50", float("nan")))
    return _json(tree)


def _pipeline(folder: Path, plugins: list[str], data: list[Path]) -> dict[str, Any]:
    def relative(path: Path | str) -> str:
        return Path(os.path.relpath(path, folder.resolve())).as_posix()

    files = {p: relative(p) for p in plugins if p.endswith(".py")}
    options = [word for plugin in plugins for word in ("--plugin", files.get(plugin, plugin))]
    words = ["tinydrop", "run", "grid.yaml", "--out", ".", *options]
    plot = {"template": TEMPLATE, "x": "dose", "y": {"report/summary.csv": "asr"}}
    stage = {
        "cmd": shlex.join(words),
        "deps": ["grid.yaml", "data.lock", *files.values(), *map(relative, data)],
        "outs": [{f"report/summary.{ending}": {"cache": False}} for ending in ("csv", "json")],
        "metrics": [{"report/metrics.json": {"cache": False}}],
    }
    return {"stages": {"run": stage}, "plots": [{"ASR by dose": plot}]}


def _find_repository(folder: Path) -> Path:
    for parent in (folder.resolve(), *folder.resolve().parents):
        if (parent / ".dvc").is_dir():
            return parent
    raise FileNotFoundError(
        f"DIR: {str(folder)!r} is in no DVC repository; `git init && dvc init` above it first "
        '(pip install "tinydrop[dvc]")'
    )


def _simplify(grid: dict[str, Any]) -> dict[str, Any]:
    """The grid as a user would write it: plug-ins without options by name, and no empty fields."""

    def simplify(value: Any) -> Any:
        if isinstance(value, dict):
            return value["name"] if set(value) == {"name"} else {k: simplify(v) for k, v in value.items()}
        return [simplify(v) for v in value] if isinstance(value, list | tuple) else value

    return {field: simplify(value) for field, value in grid.items() if value not in ("", [], ())}


def _json(tree: Any) -> str:
    return json.dumps(tree, indent=1, sort_keys=True) + "\n"
