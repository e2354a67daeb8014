"""The augmentation axis: none, standard, strong, on every embedded task."""

from __future__ import annotations

import pytest
import torch
from helpers import CLASSIFIED, EXAMPLES
from torch import Tensor

from harness.plugins.registry import create
from harness.testing.checks import CPU
from tasks.base import Task
from tasks.image._base import cutout


def augmented(name: str, strength: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """64 encoded rows, before and after."""
    task = create("tasks", name, {"augmentation": strength})
    assert isinstance(task, Task)
    x = task.encode(task.load().train.select(range(64)), CPU)
    before = x.clone()
    out = task.augment(x, torch.Generator().manual_seed(seed))
    assert torch.equal(x, before), "the batch is not changed in place"
    return x, out


@pytest.mark.parametrize("name", [EXAMPLES[m] for m in CLASSIFIED])
def test_strong_changes_more_than_standard(name: str) -> None:
    x, standard = augmented(name, "standard")
    _, strong = augmented(name, "strong")
    changed = [(y != x).float().mean().item() for y in (standard, strong)]
    assert 0 < changed[0] < changed[1]
    assert strong.shape == x.shape
    assert strong.dtype == x.dtype
    assert torch.equal(strong, augmented(name, "strong")[1]), "same rng, same batch"
    assert not torch.equal(strong, augmented(name, "strong", seed=1)[1])


@pytest.mark.parametrize("name", [EXAMPLES[m] for m in CLASSIFIED])
def test_none_trains_without(name: str) -> None:
    assert not create("tasks", name, {"augmentation": "none"}).recipe().augment  # type: ignore[attr-defined]
    assert create("tasks", name, {"augmentation": "strong"}).recipe().augment  # type: ignore[attr-defined]


def test_cutout_is_one_grey_square() -> None:
    x = torch.zeros(50, 3, 28, 28, dtype=torch.uint8)
    out = cutout(x, torch.Generator().manual_seed(0))
    grey = out[:, 0] == 128
    assert torch.equal(out[:, 0], out[:, 2])
    assert grey.flatten(1).sum(1).max() == 49
    assert grey.flatten(1).sum(1).min() >= 16, "a quarter of the square at least is inside"
    assert not out[~grey[:, None].expand_as(out)].any()
