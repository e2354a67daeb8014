"""Choosing which rows to poison: nested, repeatable, by what a surrogate forgets."""

from __future__ import annotations

import torch
from helpers import tiny

from attacks._crafting.selection import rank_by_forgetting
from attacks.base import Scene
from attacks.image.badnets import Badnets
from harness.cell.case import Fitter
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.base import Task
from tasks.samples import Outputs, Samples


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_forgetting_keeps_doses_nested_and_takes_other_rows_than_chance(store: Store) -> None:
    task = create("tasks", "digits", {"train_size": 400, "batch_size": 32})
    assert isinstance(task, Task)
    scene = Scene(task, task.load().train, Fitter(task, store, CPU, 7), CPU)
    # One pixel: what is hard to learn is forgotten now and then.
    chosen, random = Badnets(size=1, selection="forgetting"), Badnets(size=1)
    small, large = (chosen.poison(scene, dose, rng()).samples for dose in (3, 12))
    assert torch.equal(large.ids[:3], small.ids)
    assert torch.equal(large.inputs[:3], small.inputs)  # type: ignore[index, arg-type]
    assert len(set(large.ids.tolist())) == 12
    assert (scene.train.targets[scene.train.positions(large.ids)] != chosen.target).all()
    assert not torch.equal(large.ids, random.poison(scene, 12, rng()).samples.ids)
    assert torch.equal(large.ids, chosen.poison(scene, 12, rng()).samples.ids), "same rng, same rows"


def test_rows_are_ordered_by_how_often_they_are_forgotten() -> None:
    """A surrogate of known answers: row 0 is learnt at once, 1 forgotten once, 2 twice, 3 never learnt."""
    right = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]])

    class Known:
        def __init__(self, epoch: int) -> None:
            self.epoch = epoch

        def predict(self, samples: Samples) -> Outputs:
            scores = torch.nn.functional.one_hot(right[self.epoch - 1].long(), 2).float()
            return Outputs(scores, torch.zeros(4, dtype=torch.bool))

    rows = Samples(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.ones(4, dtype=torch.long), torch.arange(4))
    scene = Scene(tiny("digits"), rows, lambda samples, *, epochs, schedule: Known(epochs), CPU)  # type: ignore
    assert rank_by_forgetting(scene, rows, torch.arange(4)).tolist() == [3, 2, 1, 0]
