"""Speed of the harness, as pytest-benchmark figures: run with `pytest tests/benchmarks -n 0 --benchmark-enable`."""

from __future__ import annotations

import itertools
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import tiny
from pytest_benchmark.fixture import BenchmarkFixture
from scale import write_records
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from defenses.filtering import activation_clustering
from harness.cell.case import Fitter
from harness.cell.steps import run_steps
from harness.cell.train import train_victim
from harness.grid.grid import groups
from harness.grid.mapping import grid_from_mapping
from harness.plugins.registry import create
from harness.report.cells import CACHE, cell_table
from harness.run import workers
from harness.run.plan import make_plan
from harness.run.record_cell import blank_record
from harness.run.settings import Settings
from harness.store import records
from harness.store.folder import Store
from harness.testing.checks import CPU

HUNDRED_THOUSAND = {
    "tasks": ["digits"],
    "attacks": ["badnets", "blended"],
    "doses": list(range(1000)),
    "defenses": ["none", "oracle", "random_filter", "fine_tuning", "strip"],
    "seeds": list(range(10)),
}


def test_plan_100_000_cells(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    grid = grid_from_mapping(HUNDRED_THOUSAND)
    plan = benchmark(make_plan, grid, Store(tmp_path))
    assert len(plan.missing) == 100_000


def test_overhead_of_a_cell(benchmark: BenchmarkFixture, store: Store) -> None:
    """A whole cell whose victim is in the store: everything but training. Compare with test_training."""
    task, attack, defense = create("tasks", "digits"), create("attacks", "badnets"), create("defenses", "none")
    run_steps(task, attack, 5, defense, 0, store, CPU)  # type: ignore[arg-type]
    benchmark(run_steps, task, attack, 5, defense, 0, store, CPU)


def test_training(benchmark: BenchmarkFixture) -> None:
    """Training alone, the same victim."""
    task = create("tasks", "digits")
    train = task.load().train  # type: ignore[attr-defined]
    recipe = task.recipe()  # type: ignore[attr-defined]
    benchmark.pedantic(train_victim, (task, train), {"recipe": recipe, "seed": 0, "device": CPU}, rounds=3)


@pytest.mark.parametrize("how", ["independent components", "whitened"])
def test_features_of_a_class(benchmark: BenchmarkFixture, how: str) -> None:
    """What activation_clustering does to the features of 124 digits: as it was, and with the same distances."""
    features = torch.randn(124, 64, generator=torch.Generator().manual_seed(0)).relu()
    ica = FastICA(10, whiten="unit-variance", max_iter=1000, tol=0.005, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if how == "whitened":
            benchmark(activation_clustering.reduce, features, 10)
        else:
            benchmark(ica.fit_transform, features.double().numpy())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("what", ["training", "sampling"])
def test_a_generator(benchmark: BenchmarkFixture, what: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if precision == "float32":
        for module in ("harness.cell.train", "tasks.diffusion"):
            monkeypatch.setattr(f"{module}.autocast", lambda device: nullcontext())
    task = create("tasks", "digits_generator")
    splits = task.load()  # type: ignore[attr-defined]
    recipe = replace(task.recipe(), epochs=1)  # type: ignore[attr-defined]
    victim = train_victim(task, splits.train, recipe=recipe, seed=0, device=CPU)  # type: ignore[arg-type]
    if what == "sampling":
        benchmark.pedantic(victim.predict, (task.requests(splits.test),), rounds=3)  # type: ignore[attr-defined]
    else:
        arguments = {"recipe": recipe, "seed": 0, "device": CPU}
        benchmark.pedantic(train_victim, (task, splits.train), arguments, rounds=3)


def test_a_shared_victim(benchmark: BenchmarkFixture, store: Store) -> None:
    """What the second defense of a column pays for its victim."""
    task = tiny("digits")
    train = task.load().train
    fit = Fitter(task, store, CPU, 0)
    fit(train)
    benchmark(fit, train)


def test_read_1_000_records(benchmark: BenchmarkFixture, store: Store) -> None:
    write_records(store, 1000)
    assert len(benchmark(records.load_all, store)) == 1000


def test_table_of_1_000_new_records(benchmark: BenchmarkFixture, store: Store) -> None:
    """What the first `status` or `report` after a run reads."""
    write_records(store, 1000)

    def fresh() -> None:
        (store.root / CACHE).unlink(missing_ok=True)

    benchmark.pedantic(cell_table, (store,), setup=fresh, rounds=5)


def test_table_of_1_000_known_records(benchmark: BenchmarkFixture, store: Store) -> None:
    """Every later one; compare with the new ones."""
    write_records(store, 1000)
    cell_table(store)
    assert len(benchmark(cell_table, store)) == 1000


def test_500_cells_that_do_nothing(
    benchmark: BenchmarkFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claimed, recorded and entered in the ledger, each on the disk before the next."""
    monkeypatch.setattr(workers, "run_cell", lambda cell, settings, device: blank_record(cell))
    cells = make_plan(grid_from_mapping({**HUNDRED_THOUSAND, "doses": list(range(5))}), Store(tmp_path)).missing
    folders = map(str, itertools.count())

    def run(folder: str) -> None:
        list(workers.run_inline(list(groups(cells)), Settings(str(tmp_path / folder))))

    benchmark.pedantic(run, setup=lambda: ((next(folders),), {}), rounds=3, warmup_rounds=1)


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
