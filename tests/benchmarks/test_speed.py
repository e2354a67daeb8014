"""Speed of the harness, as pytest-benchmark figures: run with `pytest tests/benchmarks -n 0 --benchmark-enable`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import tiny
from pytest_benchmark.fixture import BenchmarkFixture

from harness import grid as grids
from harness import records
from harness.case import Fitter
from harness.cell import run as run_cell
from harness.fit import train_victim
from harness.registry import create
from harness.run import plan
from harness.store import Store
from harness.testing import CPU

HUNDRED_THOUSAND = {
    "tasks": ["digits"],
    "attacks": ["badnets", "blended"],
    "doses": list(range(1000)),
    "defenses": ["none", "oracle", "random_filter", "fine_tuning", "strip"],
    "seeds": list(range(10)),
}


def test_plan_100_000_cells(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    grid = grids.parse(HUNDRED_THOUSAND)
    todo = benchmark(plan, grid, Store(tmp_path))
    assert len(todo.todo) == 100_000


def test_overhead_of_a_cell(benchmark: BenchmarkFixture, store: Store) -> None:
    """A whole cell whose victim is in the store: everything but training. Compare with test_training."""
    task, attack, defense = create("tasks", "digits"), create("attacks", "badnets"), create("defenses", "none")
    run_cell(task, attack, 5, defense, 0, store, CPU)  # type: ignore[arg-type]
    benchmark(run_cell, task, attack, 5, defense, 0, store, CPU)


def test_training(benchmark: BenchmarkFixture) -> None:
    """Training alone, the same victim."""
    task = create("tasks", "digits")
    train = task.load().train  # type: ignore[attr-defined]
    recipe = task.recipe()  # type: ignore[attr-defined]
    benchmark.pedantic(train_victim, (task, train), {"recipe": recipe, "seed": 0, "device": CPU}, rounds=3)


def test_a_shared_victim(benchmark: BenchmarkFixture, store: Store) -> None:
    """What the second defense of a column pays for its victim."""
    task = tiny("digits")
    train = task.load().train
    fit = Fitter(task, store, CPU, 0)
    fit(train)
    benchmark(fit, train)


def test_read_1_000_records(benchmark: BenchmarkFixture, store: Store) -> None:
    plug = {"name": "x", "label": "x", "options": {}}
    for i in range(1000):
        record = {"key": f"{i:032x}", "label": f"x/x/{i}/x/0", "task": plug, "attack": plug, "defense": plug,
                  "modality": "image", "dose": i, "seed": 0, "stage": "control", "status": "done"}  # fmt: skip
        records.save(store, records.Record.model_validate(record))
    assert len(benchmark(records.load_all, store)) == 1000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_training_by_device(benchmark: BenchmarkFixture, device: str) -> None:
    task = create("tasks", "digits")
    train, recipe = task.load().train, task.recipe()  # type: ignore[attr-defined]
    benchmark.pedantic(
        train_victim,
        (task, train),
        {"recipe": recipe, "seed": 0, "device": torch.device(device)},
        rounds=3,
        warmup_rounds=1,
    )
