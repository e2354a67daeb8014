"""A cell that runs out of memory beside others runs again alone, and only then counts as failed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from helpers import tinydrop

from harness.run.memory import workers_that_fit
from harness.run.record_cell import OUT_OF_MEMORY, reason_of
from harness.store import maintenance
from harness.store.folder import Store
from harness.store.records import Record, load_all

HUNGRY = '''
"""Does not get the memory it wants while others work."""

import os
import signal
from pathlib import Path
from typing import ClassVar

import psutil
import torch

from defenses.base import Case, Defense
from tasks.plugin import options
from tasks.deployed import Model


def others() -> int:
    """Processes that run cells of this run, this one aside."""
    children = psutil.Process(os.getppid()).children()
    return sum("spawn_main" in " ".join(worker.cmdline()) for worker in children) - 1


@options
class Hungry(Defense):
    """Takes too much, once there are others."""

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "training"

    end: str = "killed"
    greed: str = "beside others"

    def defend(self, case: Case) -> Model:
        with Path(os.environ["TRIED"]).open("a") as file:
            file.write(f"{self.end}, greedy {self.greed}: {others()} others\\n")
        print("about to take too much")
        if others() or self.greed == "always":
            if self.end == "killed":
                os.kill(os.getpid(), signal.SIGKILL)  # as the kernel would
            torch.empty(1 << 60)
        return case.fit(case.train)
'''
GRID = """
tasks: [{name: digits, train_size: 150, epochs: 1, test_size: 60, reserve_size: 60}]
attacks: [badnets]
doses: [3]
defenses: [none]
seeds: [0, 1]
also:
  - defenses: [{name: hungry, end: killed}, {name: hungry, end: refused}, {name: hungry, end: refused, greed: always}]
    seeds: [0]
"""
CASES = ["killed, greedy beside others", "refused, greedy beside others", "refused, greedy always"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("memory")


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "hungry.py").write_text(HUNGRY)
    (folder / "grid.yaml").write_text(GRID)
    words = ("run", "grid.yaml", "--out", "run", "--jobs", 2, "--plugin", "hungry.py")
    return tinydrop(*words, cwd=folder, TRIED=str(folder / "tried"))


def hungry(folder: Path, greed: str) -> dict[str, Record]:
    """By the way they end."""
    found = [r for r in load_all(Store(folder / "run")).values() if r.defense.options.get("greed") == greed]
    return {str(r.defense.options["end"]): r for r in found}


def test_a_cell_that_runs_out_of_memory_beside_others_runs_again_alone(
    folder: Path, done: subprocess.CompletedProcess[str]
) -> None:
    assert {end: r.status for end, r in hungry(folder, "beside others").items()} == dict.fromkeys(
        ("killed", "refused"), "done"
    ), done.stdout + done.stderr
    tried = (folder / "tried").read_text().splitlines()
    assert tried == [f"{case}: 1 others" for case in CASES] + [f"{case}: 0 others" for case in CASES]
    assert done.stdout.count("out of memory beside others, runs again alone") == 3
    assert "5/5 cells, 4 done, 0 running, 1 failed" in done.stdout


def test_what_does_not_fit_alone_has_failed(folder: Path, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 1
    record = hungry(folder, "always")["refused"]
    assert (record.status, record.reason) == ("failed", "out of memory")
    store = Store(folder / "run")
    assert len(list((store.root / "records").iterdir())) == 5, "the first try is no record"
    kept = {path.stem: path.read_text() for path in (store.root / "logs").iterdir()}
    assert kept == {record.key: "about to take too much\n"}
    assert maintenance.verify(store).problems == []


def test_what_torch_says_when_memory_is_short() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60)
    assert reason_of(refused.value) == "out of memory"
    said = {
        "out of memory": [MemoryError()],
        "out of GPU memory": [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` ..."),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ],
        "ValueError: no memory of it": [ValueError("no memory of it")],
    }
    for reason, errors in said.items():
        assert [reason_of(error) for error in errors] == [reason] * len(errors)
    assert set(said) > set(OUT_OF_MEMORY)


def test_workers_of_a_gpu_by_measured_memory() -> None:
    gib = 1 << 30
    assert workers_that_fit([], 80 * gib) == 14, "nothing is known: 4 GiB each"
    assert workers_that_fit([0], 80 * gib) == 14, "measured without a GPU"
    assert workers_that_fit([], 0) == 1, "no GPU tells its memory"
    assert workers_that_fit([1 * gib, 3 * gib], 16 * gib) == 3, "the largest counts, and what torch needs beside it"
    assert workers_that_fit([7 * gib], 16 * gib) == 1
    assert workers_that_fit([30 * gib], 16 * gib) == 1, "the cells ran, so one worker fits"
    assert workers_that_fit([100 << 20], 80 * gib) > 50
    fits = [workers_that_fit([gib * i // 4 for i in range(1, n)], 24 * gib) for n in range(2, 60)]
    assert fits == sorted(fits, reverse=True)
