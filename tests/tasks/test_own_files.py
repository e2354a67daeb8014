"""The test split of tasks over your own files."""

from __future__ import annotations

import torch

from tasks.own_files import draw_test_rows


def test_the_split_is_fixed_stratified_and_leaves_every_class_a_training_row() -> None:
    targets = torch.tensor([0] * 50 + [1] * 2 + [2])
    mask = draw_test_rows(targets, 0.2)
    assert targets[mask].bincount(minlength=3).tolist() == [10, 1, 0]
    assert torch.equal(mask, draw_test_rows(targets, 0.2))
