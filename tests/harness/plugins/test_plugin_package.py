"""Somebody else's package, installed with pip: found by its entry points, checked, run in workers, part of the keys."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import helpers
import pytest
import yaml

PACKAGE = Path(__file__).parent / "plugin_package"
GRID = {
    "tasks": [{"name": "digits", "train_size": 150, "epochs": 1, "reserve_size": 60}], "attacks": ["bar"],
    "doses": [3], "defenses": ["none", {"name": "quiet_rows", "share": 0.2}], "seeds": [0],
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip installed the package into; the source is a copy, since building leaves files beside it."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PACKAGE, folder / "source")
    words = ["install", "-q", "--no-deps", "--no-build-isolation", "--target", str(folder / "site")]
    pip = [sys.executable, "-m", "pip", *words, str(folder / "source")]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def tinydrop(site: Path, *words: object) -> CompletedProcess[str]:
    return helpers.tinydrop(*words, cwd=site.parent, path=[site])


def test_it_is_listed_and_runs_and_its_helpers_count(site: Path, tmp_path: Path) -> None:
    listed = {row["name"]: row for row in json.loads(tinydrop(site, "list", "--json").stdout)}
    assert listed["bar"]["module"] == "tinydrop_example.bar"
    assert listed["quiet_rows"]["stage"] == "filtering"
    assert listed["quiet_rows"]["options"] == {"share": "Share = 0.1"}

    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(GRID))
    done = tinydrop(site, "run", file, "--out", tmp_path / "run", "--jobs", 1)
    assert done.returncode == 0, done.stderr
    records = [json.loads(p.read_text()) for p in (tmp_path / "run" / "records").glob("*.json")]
    assert {(r["attack"]["name"], r["defense"]["label"], r["status"]) for r in records} == {
        ("bar", "none", "done"),
        ("bar", "quiet_rows(share=0.2)", "done"),
    }
    assert {r["attack"]["source"] for r in records} == {"tinydrop-example 0.1.0"}, "a record says whose code it is"
    assert {r["task"]["source"] for r in records} == {""}
    helper = site / "tinydrop_example" / "loudness.py"
    text = helper.read_text()
    helper.write_text(text.replace(".mean(1)", ".amax(1)"))
    assert "1 to run" in tinydrop(site, "run", file, "--out", tmp_path / "run", "--dry-run").stdout
    helper.write_text(text)


def test_it_keeps_the_contract(site: Path) -> None:
    plugin = "tinydrop_example.quiet_rows:QuietRows"
    checked = tinydrop(site, "check", plugin)
    assert checked.returncode == 0, checked.stderr
    assert f"{plugin} keeps the contract" in checked.stdout


def test_a_name_that_is_taken_is_refused_naming_both(site: Path, tmp_path: Path) -> None:
    shutil.copytree(site, tmp_path / "site")
    points = next((tmp_path / "site").glob("tinydrop_example-*.dist-info")) / "entry_points.txt"
    points.write_text("[tinydrop.defenses]\nnad = tinydrop_example.quiet_rows\n")
    refused = tinydrop(tmp_path / "site", "list")
    assert refused.returncode == 2
    said = " ".join(refused.stderr.split())
    assert "two defenses are called 'nad': defenses.repair.nad and tinydrop_example.quiet_rows" in said
    assert "Traceback" not in said
