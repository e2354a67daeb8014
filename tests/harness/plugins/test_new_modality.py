"""A modality from plug-in files: a task and an attack are run, reported, ranked, shown and checked like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers import tinydrop

FILES = Path(__file__).parent / "new_modality"
TASK, ATTACK = FILES / "melodies.py", FILES / "last_notes.py"
GRID = {
    "tasks": ["melodies"], "attacks": ["last_notes"], "doses": [40],
    "defenses": ["none", "outlier", "dedup"], "seeds": [0],
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("melodies")
    (folder / "grid.yaml").write_text(yaml.safe_dump(GRID))
    plugins = ("--plugin", TASK, "--plugin", ATTACK)
    done = tinydrop("run", folder / "grid.yaml", "--out", folder / "run", "--jobs", "0", *plugins)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_its_cells_are_graded_and_reported(run: Path) -> None:
    cells = pd.read_csv(run / "report" / "cells.csv")
    assert set(cells.modality) == {"melody"}
    assert set(cells.status) == {"done"}
    undefended = cells[(cells.defense == "none") & (cells.dose == 40)].iloc[0]
    assert undefended.asr > 0.9 > 0.5 > undefended.asr_floor
    assert 0 < undefended.notes_changed <= 3 / 12
    assert undefended.labels_changed == 1
    assert "last_notes" in tinydrop("report", run).stdout


def test_its_rows_are_shown_as_the_task_says(run: Path) -> None:
    rows = json.loads(next((run / "findings").glob("*/poisoned.json")).read_text())
    assert all(row["answer"].endswith("C G C") for row in rows), "note names of the pitches 0, 127 and 0"


def test_it_stands_on_a_leaderboard(run: Path, tmp_path: Path) -> None:
    done = tinydrop("leaderboard", run, "--out", tmp_path / "site", "--svg-only")
    assert done.returncode == 0, done.stderr
    assert "melody" in (tmp_path / "site" / "tasks.html").read_text()


@pytest.mark.parametrize("plugin", [TASK, ATTACK])
def test_it_is_checked(plugin: Path) -> None:
    done = tinydrop("check", plugin, "--plugin", TASK, "--plugin", ATTACK)
    assert done.returncode == 0, done.stderr
    assert "melodies: " in done.stdout
