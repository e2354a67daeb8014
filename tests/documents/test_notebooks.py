"""Every notebook runs top to bottom, with small numbers, and lies in git without outputs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from helpers import ROOT
from nbclient import NotebookClient
from nbformat import NotebookNode
from typer.testing import CliRunner

from harness.cli.app import app

FOLDER = ROOT / "notebooks"
NAMES = ["01_quickstart", "02_dose_response", "03_write_a_defense", "04_publish_a_leaderboard", "05_audit_a_model"]
SMALL = "train_size, epochs = 200, 2\ndoses = [0, 5, 20]\nseeds = [0]\n"
LEARNT = SMALL.replace("200, 2", "400, 10")  # an audit refuses a model that has learnt nothing


def read(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_there_is_no_other_notebook() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stripped(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}, "an editor left something"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [], f"{cell.id} has outputs; clear them before committing"
            assert cell.execution_count is None, f"{cell.id} has a count; clear the outputs before committing"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_top_to_bottom(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = read(name)
    if "tinydrop leaderboard" in str(notebook) and CliRunner().invoke(app, ["leaderboard", "--help"]).exit_code:
        pytest.skip("this tinydrop has no command `leaderboard`")
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    folders = [line.partition(" = ")[0] for line in parameters.source.splitlines() if "runs/notebooks" in line]
    small = LEARNT if "tinydrop audit" in str(notebook) else SMALL
    parameters.source = small + "\n".join(f"{folder} = {str(tmp_path / folder)!r}" for folder in folders)
    # The commands that a cell runs are this Python's, and nothing of the user's own setup counts.
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(FOLDER)}}).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "error:" not in said
    assert ": not found" not in said  # what a shell says of a command that is not there
    assert (tmp_path / "out" / "records").is_dir()
