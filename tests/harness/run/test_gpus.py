"""Workers are dealt over the GPUs of a machine: told by what they are let see, so without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from harness.cli.app import app
from harness.errors import BadGrid
from harness.grid.grid import expand, groups
from harness.grid.mapping import grid_from_mapping
from harness.run import memory
from harness.run.event import Ended
from harness.run.prepare import default_jobs, select_gpus
from harness.run.settings import Settings
from harness.run.workers import run_workers, share_threads
from harness.store.folder import Store

LOOKING = '''
"""Writes down which GPUs its process may use."""

import os
import time
from pathlib import Path
from typing import ClassVar

from defenses.base import Case, Defense
from tasks.plugin import options
from tasks.deployed import Model


@options
class Looking(Defense):
    """Looks and waits for the others."""

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "training"

    folder: str = "."

    def defend(self, case: Case) -> Model:
        (Path(self.folder) / str(os.getpid())).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "unset"))
        while len(list(Path(self.folder).iterdir())) < 3:
            time.sleep(0.05)
        return case.fit(case.train)
'''


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


def test_those_that_torch_sees(three: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert select_gpus("auto") == ("0", "1", "2")
    assert select_gpus("cuda", 2) == ("0", "1")
    assert select_gpus("cpu") == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 4,GPU-9f")
    assert select_gpus("cuda", 2) == ("5", "4")
    with pytest.raises(BadGrid, match="--gpus 4: visible are 5, 4, GPU-9f"):
        select_gpus("auto", 4)
    with pytest.raises(BadGrid, match="--gpus 1: is for --device cuda"):
        select_gpus("cpu", 1)


def test_as_many_workers_as_fit_on_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 1 << 30
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("harness.store.records.read_gpu_peaks", lambda store: [4 * gib])
    asked = []
    room = {"0": memory.Gpu(0, 24 * gib), "1": memory.Gpu(12 * gib, 24 * gib)}
    monkeypatch.setattr(memory, "gpu_memory", lambda names: asked.append(names) or [room[name] for name in names])
    assert default_jobs(("0",), Store(tmp_path)) == 4
    assert default_jobs(("0", "1"), Store(tmp_path)) == 4, "two on each: the fuller one counts"
    assert asked == [("0",), ("0", "1")]


def test_threads_are_shared_and_no_more_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    for asked, threads in {"": 4, "3": 3, "6": 4, "0": 4, "4,2": 4}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert share_threads(2) == threads, asked
    assert share_threads(16) == 1


def test_each_worker_sees_one(tmp_path: Path) -> None:
    (tmp_path / "looking.py").write_text(LOOKING)
    (tmp_path / "seen").mkdir()
    from harness.plugins import custom

    custom.add(str(tmp_path / "looking.py"))
    grid = grid_from_mapping({
        "tasks": [{"name": "digits", "train_size": 100, "epochs": 1, "test_size": 20, "reserve_size": 20}],
        "attacks": ["badnets"], "doses": [2], "defenses": [{"name": "looking", "folder": str(tmp_path / "seen")}],
        "seeds": [0, 1, 2],
    })  # fmt: skip
    settings = Settings(
        str(tmp_path / "run"), "cpu", ("4", "GPU-9f"), plugins=(str(tmp_path / "looking.py"),), timeout=120
    )
    ended = [e.record.status for e in run_workers(list(groups(expand(grid))), settings, 3) if isinstance(e, Ended)]
    assert ended == ["done"] * 3
    assert sorted(path.read_text() for path in (tmp_path / "seen").iterdir()) == ["4", "4", "GPU-9f"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "2"], "--gpus 2: visible are none"),
        (["--device", "cuda"], "device cuda: no GPU is visible here; use device cpu"),
        (["--device", "cuda", "--executor", "ray"], "device cuda: no GPU is visible here; use device cpu"),
        (["--speedup", "graphs"], "speedup graphs: is for GPUs, and victims are trained on the CPU here; leave it out"),
        (["--gpus", "2", "--executor", "ray"], "--gpus 2: is for --executor local; Ray gives GPUs out by --gpu-share"),
    ],
)
def test_what_cannot_be_dealt_over(words: list[str], said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", "quickstart", "--out", str(tmp_path), *words])
    assert isinstance(done.exception, BadGrid)
    assert said in str(done.exception)
