"""`tinydrop dvc`, with the real dvc: repro, metrics and plots of a run's folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers import ROOT
from typer.testing import CliRunner

from harness.cli.app import app
from harness.grid.mapping import grid_from_mapping, grid_from_plan
from harness.grid.read import read_grid
from harness.plugins.registry import create
from harness.report.dvc_export import fingerprints
from harness.run.execute import execute
from harness.run.plan import make_plan
from harness.run.settings import Settings
from harness.store.folder import Store
from harness.store.records import read_plan, read_planned_grid
from tasks.plugin import BadInput

TASK = {"name": "digits", "train_size": 150, "epochs": 1, "test_size": 60, "reserve_size": 60}
GRID = {"tasks": [TASK], "attacks": ["badnets"], "doses": [0, 4], "defenses": ["none", "oracle"], "seeds": [0, 1]}


def measured(folder: Path) -> Store:
    todo = make_plan(grid_from_mapping(GRID), Store(folder))
    list(execute(todo, Settings(store=str(folder), threads=1), jobs=0))
    return Store(folder)


def test_a_folder_outside_of_a_repository_is_refused_in_one_line(tmp_path: Path) -> None:
    store = Store(tmp_path)
    list(
        execute(
            make_plan(grid_from_mapping({**GRID, "doses": [0], "seeds": [0]}), store), Settings(str(tmp_path)), jobs=0
        )
    )
    done = CliRunner().invoke(app, ["dvc", str(tmp_path)])
    assert isinstance(done.exception, FileNotFoundError)
    assert "is in no DVC repository; `git init && dvc init` above it first" in str(done.exception)
    assert not (tmp_path / "dvc.yaml").exists()


Do = Callable[..., str]


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, Do]:
    """A DVC repository, and what runs a command there."""
    if shutil.which("dvc") is None:
        pytest.skip('needs dvc on the PATH: pip install "tinydrop[dvc]"')
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "tinydrop"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m harness.cli "$@"\n')
    command.chmod(0o755)
    here = tmp_path / "repository"
    here.mkdir()
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{command.parent}:{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1", "TINYDROP_DATA": str(here / "data"),
        "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t",
        "HOME": str(tmp_path),
    }  # fmt: skip

    def do(words: str, where: Path = here) -> str:
        done = subprocess.run(words.split(), cwd=where, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, words + done.stdout + done.stderr
        return done.stdout

    do("git init -q")
    do("dvc init -q")
    return here, do


def test_repro_metrics_and_plots_of_a_run(tmp_path: Path, repository: tuple[Path, Do]) -> None:
    home, do_at = repository
    folder = home / "runs" / "mine"

    def do(words: str, where: Path = folder) -> str:
        return do_at(words, where)

    store = measured(folder)
    assert CliRunner().invoke(app, ["dvc", str(folder)]).exit_code == 0
    assert read_grid(str(folder / "grid.yaml")) == grid_from_plan(read_planned_grid(store))
    assert json.loads((folder / "data.lock").read_text()) == fingerprints(store)
    assert all(fingerprints(store).values())

    assert "0 to run" in do("dvc repro"), "the stage goes on from what is recorded"
    assert "didn't change, skipping" in do("dvc repro")
    shown = json.loads(do("dvc metrics show --json"))[""]["data"]["report/metrics.json"]["data"]
    (of_task,) = shown.values()
    summary = json.loads((folder / "report" / "summary.json").read_text())
    row = next(r for r in summary if r["dose"] == 4 and r["defense"] == "none")
    assert of_task["badnets"]["none"]["asr at 4"] == pytest.approx(row["asr"], abs=1e-5)
    do("git add dvc.yaml dvc.lock grid.yaml data.lock report/metrics.json report/summary.json report/summary.csv")
    do("git add -A .dvc", home)
    do("git commit -qm first")

    (folder / "grid.yaml").write_text(yaml.safe_dump({**GRID, "doses": [0, 4, 30]}))
    assert "4 to run" in do("dvc repro"), "what is new in the grid"
    changed = json.loads(do("dvc metrics diff --json"))
    (new,) = (name for name in changed["report/metrics.json"] if name.endswith("badnets.none.asr at 30"))
    assert changed["report/metrics.json"][new].get("old") is None
    for words, revisions in (("show", {"workspace"}), ("diff", {"workspace", "HEAD"})):
        do(f"dvc plots {words} -o {tmp_path / words}")
        page = (tmp_path / words / "index.html").read_text()
        assert "vega" in page
        assert all(revision in page for revision in revisions)
        assert '"facet"' in page, "the curves are drawn by attack"
    assert len(read_plan(store)) == 12
    assert CliRunner().invoke(app, ["dvc", str(folder)]).exit_code == 0
    assert "didn't change, skipping" in do("dvc repro"), "written again, it is the same"


def test_data_that_moved_is_named(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    store = measured(tmp_path / "run")
    assert CliRunner().invoke(app, ["dvc", str(store.root)]).exit_code == 0
    before = (store.root / "dvc.yaml").read_bytes()
    (label, now), *_ = fingerprints(store).items()
    (store.root / "data.lock").write_text(json.dumps({label: "f" * 32}))
    done = CliRunner().invoke(app, ["dvc", str(store.root)])
    assert f"the data of {label} changed: ffffffffffff is {now[:12]} now" in " ".join(done.output.split())
    assert (store.root / "dvc.yaml").read_bytes() == before


def reviews(folder: Path, word: str) -> None:
    """A dataset as the Hub has sst2, of forty phrases."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = pd.DataFrame({"sentence": [f"{word} {'good' if i % 2 else 'bad'} {i}" for i in range(40)],
                         "label": [i % 2 for i in range(40)], "idx": range(40)})  # fmt: skip
    for split in ("train", "validation"):
        rows.assign(sentence=rows.sentence + f" {split}").to_parquet(folder / f"{split}-00000-of-00001.parquet")


def test_a_version_of_the_data_is_pinned_by_its_pointer(
    repository: tuple[Path, Do], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, do = repository
    data, run = home / "data" / "sst2", home / "run"
    monkeypatch.setenv("TINYDROP_DATA", str(home / "data"))
    reviews(data, "a")
    do("dvc add -q data/sst2")
    run.mkdir()
    sst2 = {"name": "sst2", "train_size": 20, "test_size": 10, "reserve_size": 10, "epochs": 1}
    (run / "mine.yaml").write_text(
        yaml.safe_dump({**GRID, "tasks": [sst2], "attacks": ["badwords"], "doses": [0, 2], "seeds": [0]})
    )
    do("tinydrop run mine.yaml --out . --jobs 0", run)
    do("tinydrop dvc .", run)
    assert "../data/sst2" in yaml.safe_load((run / "dvc.yaml").read_text())["stages"]["run"]["deps"]
    do("dvc repro", run)
    pinned = yaml.safe_load((run / "dvc.lock").read_text())["stages"]["run"]["deps"]
    pointer = yaml.safe_load((home / "data" / "sst2.dvc").read_text())["outs"][0]["md5"]
    assert {"path": "../data/sst2", "hash": "md5", "md5": pointer}.items() <= next(
        dep for dep in pinned if dep["path"] == "../data/sst2"
    ).items()
    reviews(data, "another")
    assert "changed deps" in do("dvc status", run), "other data makes the stage stale"
    shutil.rmtree(data)
    with pytest.raises(BadInput, match=r"only its DVC pointer is there; `dvc pull .*sst2.dvc`"):
        create("tasks", "sst2", {}).load()  # type: ignore[attr-defined]
    do("dvc checkout -q data/sst2.dvc")
    assert "up to date" in do("dvc status", run)


def test_a_git_lfs_pointer_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYDROP_DATA", str(tmp_path))
    (tmp_path / "sst2").mkdir()
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
    (tmp_path / "sst2" / "train-00000-of-00001.parquet").write_text(pointer)
    with pytest.raises(BadInput, match=r"train-00000-of-00001.parquet is a Git LFS pointer; `git lfs pull`"):
        create("tasks", "sst2", {}).load()  # type: ignore[attr-defined]
