"""From nothing to a first cell of one's own: a new package passes its own test and runs its own grid."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, invoke, tinydrop

from harness.errors import BadPlugin, UnknownName


@pytest.mark.parametrize("kind", ["attack", "task"])
def test_a_new_plug_in_keeps_its_contract(kind: str, tmp_path: Path) -> None:
    assert invoke("new", kind, "my_first", "--out", tmp_path / "mine").exit_code == 0
    assert "keeps the contract" in tinydrop("check", tmp_path / "mine" / "my_first.py").stdout


def test_a_new_package_passes_its_own_test_and_runs_its_own_grid(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    assert invoke("new", "defense", "my_first", "--out", folder).exit_code == 0
    file = folder / "my_first.py"
    paths = os.pathsep.join([str(ROOT), str(folder)])
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder / "test_my_first.py")],
        cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout + tested.stderr
    ran = tinydrop("run", folder / "grid.yaml", "--plugin", file, "--out", tmp_path / "run", "--jobs", 0)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    records = [json.loads(p.read_text()) for p in (tmp_path / "run" / "records").glob("*.json")]
    assert {r["status"] for r in records} == {"done"}
    assert any(r["defense"]["name"] == "my_first" for r in records)


def test_a_package_that_is_installed_is_found_by_its_entry_point(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    assert invoke("new", "defense", "my_installed", "--out", folder).exit_code == 0
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(target)]
    done = subprocess.run([*pip, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode and "setuptools" in done.stderr:
        pytest.skip("building a package needs setuptools in this environment")
    assert done.returncode == 0, done.stderr
    listed = tinydrop("list", "defenses", "--json", path=[target], check=True)
    assert "my_installed" in {row["name"] for row in json.loads(listed.stdout)}


def test_a_file_that_is_installed_may_still_be_named(tmp_path: Path) -> None:
    """Installed with `pip install -e .`, a file is its own entry point."""
    folder = tmp_path / "mine"
    assert invoke("new", "defense", "my_installed", "--out", folder).exit_code == 0
    info = folder / "my_installed-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-installed\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[tinydrop.defenses]\nmy_installed = my_installed\n")
    words = ("run", "grid.yaml", "--dry-run", "--plugin")
    done = tinydrop(*words, "my_installed.py", cwd=folder, path=[folder])
    assert done.returncode == 0, done.stderr
    (tmp_path / "my_installed.py").write_text((folder / "my_installed.py").read_text())
    done = tinydrop(*words, tmp_path / "my_installed.py", cwd=folder, path=[folder])
    assert done.returncode == 2
    assert "'my_installed' is already my_installed" in " ".join(done.stderr.split()), "another file of that name"


def test_check_says_what_to_change(tmp_path: Path) -> None:
    assert "keeps the contract" in invoke("check", "random_filter").stdout
    assert invoke("new", "defense", "my_broken", "--out", tmp_path / "mine").exit_code == 0
    file = tmp_path / "mine" / "my_broken.py"
    file.write_text(
        file.read_text().replace("judge = case.fit(", "case.train.targets[0] = 0\n        judge = case.fit(")
    )
    broken = tinydrop("check", file)
    assert broken.returncode == 1
    assert "my_broken changed case.train in place; work on a copy" in " ".join(broken.stderr.split())
    with pytest.raises(UnknownName, match="did you mean 'spectral_signatures'"):
        invoke("check", "spectral_signature")


def test_names_and_folders_that_are_taken_are_refused(tmp_path: Path) -> None:
    for name, reason in {
        "nad": "is already defenses.repair.nad",
        "json": "is the name of another module",
        "My-D": "no name for",
    }.items():
        with pytest.raises(BadPlugin, match=reason):
            invoke("new", "defense", name, "--out", tmp_path / "x")
        assert not (tmp_path / "x").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("mine")
    with pytest.raises(BadPlugin, match="is not empty"):
        invoke("new", "attack", "my_attack", "--out", tmp_path / "full")
