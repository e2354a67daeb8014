"""What is asked of a model beside the challenge: triggers that no poison carries, and the ASR after a retuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from attacks.base import Scene
from attacks.image.badnets import Badnets
from harness.cell.case import Fitter
from harness.cell.retune import relearn
from harness.cell.steps import make_unseen, run_steps
from harness.errors import BadGrid
from harness.grid.grid import RETUNE_ROWS, expand
from harness.grid.mapping import grid_from_mapping, mapping_from_grid
from harness.plugins.registry import create
from harness.run import run
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.deployed import Victim
from tasks.samples import Samples

GRID = {"tasks": ["digits"], "attacks": ["badnets"], "doses": [0, 40], "defenses": ["none"], "seeds": [0]}


def test_triggers_that_no_poison_carries_are_asked_too(store: Store) -> None:
    task = create("tasks", "digits", {})
    found = run_steps(task, Badnets(), 40, create("defenses", "none", {}), 0, store, CPU).metrics  # type: ignore[arg-type]
    assert found["asr"].value > 0.8
    assert found["asr_unseen_moved"].n == found["asr"].n
    assert found["asr_unseen_moved"].value < 0.3 < found["asr"].value, "a patch in another place is another patch"


def test_a_trigger_that_is_trained_is_not_unseen_and_one_that_does_not_fit_is_left_out(store: Store) -> None:
    task = create("tasks", "digits", {})
    splits = task.load()  # type: ignore[attr-defined]
    scene = Scene(task, splits.train, Fitter(task, store, CPU, 0), CPU)  # type: ignore[arg-type]
    assert set(make_unseen(Badnets(margin=4), scene, splits.test, 0)) == {"moved"}, "5 pixels and a margin do not fit 8"
    assert not make_unseen(Badnets(margin=5), scene, splits.test, 0)


def test_retuning_is_on_so_many_rows_and_its_poisons_bring_a_backdoor(store: Store) -> None:
    task = create("tasks", "digits", {})
    splits = task.load()  # type: ignore[attr-defined]
    asked: list[Samples] = []
    fitter = Fitter(task, store, CPU, 0)  # type: ignore[arg-type]
    victim = fitter(splits.train)
    original = Fitter.__call__

    def watch(self: Fitter, samples: Samples, **changes: Any) -> Victim:
        asked.append(samples)
        return original(self, samples, **changes)

    scene = Scene(task, splits.train, fitter, CPU)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fitter, "__call__", watch)
        models = dict(
            relearn(Badnets(), scene, splits.train, victim, (0, 2, 60), fitter, torch.Generator().manual_seed(1))
        )
    assert list(models) == [0, 2, 60]
    clean = splits.train
    for dose, rows in zip(models, asked):
        assert len(rows) == RETUNE_ROWS
        assert len(rows.ids.unique()) == RETUNE_ROWS
        changed = (rows.inputs != clean.select(clean.positions(rows.ids)).inputs).flatten(1).any(1)
        assert int(changed.sum()) == dose
    assert set(asked[1].ids[-2:].tolist()) <= set(asked[2].ids[-60:].tolist()), "doses are nested"
    challenge = Badnets().challenge(scene, splits.test, torch.Generator())
    asr = {d: float((m.predict(challenge.inputs).answers == 0).float().mean()) for d, m in models.items()}
    assert asr[0] < 0.2 < 0.7 < asr[60]


def test_retune_is_a_field_of_a_grid_and_changes_keys_only_where_it_is_set() -> None:
    plain, retuned = (grid_from_mapping({**GRID, **more}) for more in ({}, {"retune": [0, 5]}))
    assert grid_from_mapping(mapping_from_grid(retuned)) == retuned
    assert "retune" not in mapping_from_grid(plain)
    assert {c.label for c in expand(plain)} == {c.label for c in expand(retuned)}
    assert not {c.key for c in expand(plain)} & {c.key for c in expand(retuned)}
    assert [c.key for c in expand(plain)] == [c.key for c in expand(grid_from_mapping({**GRID, "retune": []}))]
    assert expand(grid_from_mapping({**GRID, "retune": [5], "also": [{"doses": [7]}]}))[-1].retune == (5,)


@pytest.mark.parametrize("retune", [[101], [-1], ["5"], [5, 5], 2.5])
def test_a_retune_that_cannot_be_is_refused(retune: object) -> None:
    with pytest.raises(BadGrid, match="retune"):
        grid_from_mapping({**GRID, "retune": retune})


def test_a_run_reports_relearning(tmp_path: Path) -> None:
    digits = {"name": "digits", "train_size": 400, "epochs": 4}
    results = run({**GRID, "tasks": [digits], "doses": [0, 20], "retune": [0, 10]}, out=tmp_path / "r", jobs=0)
    assert {"asr_retuned_0", "asr_retuned_10"} <= set(results.columns)
    assert results.asr_retuned_0.notna().all()
