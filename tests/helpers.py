"""What tests share and is no fixture: the command in a process of its own, small tasks and grids, tables of cells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from harness.cli.app import app
from harness.plugins.modalities import examples
from harness.plugins.registry import entries, load_class
from harness.testing.checks import small_task
from tasks.base import Task

ROOT = Path(__file__).resolve().parents[1]
USER_DATA = {"image_folder", "csv_text", "audio_folder"}  # need a path; their own tests make the files
EXAMPLES = examples()  # an embedded task of each modality
CLASSIFIED = ("image", "text", "audio")

needs_data = pytest.mark.skipif(
    not os.environ.get("TINYDROP_DATA"), reason="set TINYDROP_DATA to the folder with the real datasets"
)


def command(*words: object) -> list[str]:
    """The command line that starts `tinydrop` with these words: from ROOT, or with ROOT on the Python path."""
    return [sys.executable, "-W", "error::DeprecationWarning:harness", "-m", "harness.cli", *map(str, words)]


def tinydrop(
    *words: object, cwd: Path = ROOT, check: bool = False, path: Iterable[Path] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `tinydrop` as a user does, in a process of its own; check: raise if it does not end with 0.

    path: folders that Python imports from besides ROOT. environment: variables that are set on top of this process's.
    """
    python_path = os.pathsep.join(map(str, (ROOT, *path)))
    variables = {**os.environ, "COLUMNS": "200", "PYTHONPATH": python_path, **environment}
    return subprocess.run(command(*words), cwd=cwd, capture_output=True, text=True, env=variables, check=check)


def invoke(*words: object) -> Result:
    """Run `tinydrop` in this process, which saves its start: some seconds. Not for plug-ins of files, which would stay.

    Raises what the command raises, such as the errors of harness.errors, of which a user sees the line alone.
    """
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@cache
def tiny(name: str) -> Task:
    """A task cut down to what a contract needs: a hundred rows, one epoch. Skips where the real data is absent."""
    local = load_class("tasks", name).dataset == "embedded"  # type: ignore[attr-defined]
    if not local and not os.environ.get("TINYDROP_DATA"):
        pytest.skip(f"{name} needs real data: set TINYDROP_DATA to the folder that holds it")
    return small_task(name)


def task_names() -> list[str]:
    return [name for name in entries("tasks") if name not in USER_DATA]


def grid_file(folder: Path, **changes: Any) -> Path:
    """A grid of twelve cells in folder/grid.yaml, with these fields changed."""
    tree = {
        "tasks": [{"name": "digits", "train_size": 150, "epochs": 2, "test_size": 60}],
        "attacks": ["badnets"], "doses": [0, 4], "defenses": ["none", "oracle", "random_filter"], "seeds": [0, 1],
        **changes,
    }  # fmt: skip
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def table(folder: Path) -> pd.DataFrame:
    """What a run measured, without times and memory."""
    cells = pd.read_csv(folder / "report" / "cells.csv")
    return cells.drop(columns=["seconds", "fit_seconds", "peak_memory_bytes", "commit"])


def plugin_columns(**names: str) -> dict[str, str]:
    """The columns of a table of cells that name its plug-ins, which have no options."""
    parts = {"": lambda name: name, "_name": lambda name: name, "_options": lambda name: "{}"}
    return {f"{column}{part}": write(name) for column, name in names.items() for part, write in parts.items()}


def frame(asr: dict[str, list[float]], attack: str = "a", doses: tuple[int, ...] = (5,), **more: Any) -> pd.DataFrame:
    """Cells of one task: ASR of every seed by defense, the same at all doses."""
    rows = [
        {**plugin_columns(task="t", attack=attack, defense=d), "modality": "image",
         "stage": "control" if d == "none" else "x", "dose": dose, "seed": seed, "status": "done",
         "reason": "", "train_size": 100, "clean_metric": "accuracy",
         "asr": value, "asr_n": 100, "asr_floor": 0.0, "utility": 0.9, "utility_n": 100, "fit_seconds": 2.0,
         "clean_used": 0, "key": f"{attack}{d}{dose}{seed}", "commit": "", "device": "", "source": "s", **more}
        for d, values in asr.items() for dose in doses for seed, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)
