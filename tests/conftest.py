"""Shared pieces of the tests: tiny tasks, a store, and where the real datasets are."""

from __future__ import annotations

import os
import subprocess
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the tests must not depend on a network
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of commands: there are as many tests at a time as cores

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from harness.plugins.registry import entries, load_class
from harness.store.folder import Store
from harness.testing.checks import small_task
from tasks.base import Task

ROOT = Path(__file__).resolve().parents[1]
TINY = ["digits.train_size=150", "digits.epochs=2", "digits.test_size=60"]
USER_DATA = {"image_folder", "csv_text", "audio_folder"}  # need a path; their own tests make the files
CLASSIFIED = ("image", "text", "audio")

needs_data = pytest.mark.skipif(
    not os.environ.get("TINYDROP_DATA"), reason="set TINYDROP_DATA to the folder with the real datasets"
)


@cache
def tiny(name: str) -> Task:
    """A task cut down to what a contract needs: a hundred rows, one epoch. Skips where the real data is absent."""
    local = load_class("tasks", name).dataset == "embedded"  # type: ignore[attr-defined]
    if not local and not os.environ.get("TINYDROP_DATA"):
        pytest.skip(f"{name} needs real data: set TINYDROP_DATA to the folder that holds it")
    return small_task(name)


def task_names() -> list[str]:
    return [name for name in entries("tasks") if name not in USER_DATA]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    torch.set_num_threads(1)


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


def tinydrop(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user has it."""
    words = [sys.executable, "-W", "error::DeprecationWarning:harness", "-m", "harness.cli", *map(str, args)]
    environment = {**os.environ, "COLUMNS": "200", **env}
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)


def grid_file(folder: Path, **changes: Any) -> Path:
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
    frame = pd.read_csv(folder / "report" / "cells.csv")
    return frame.drop(columns=["seconds", "fit_seconds", "peak_memory_bytes", "commit"])
