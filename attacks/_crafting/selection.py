"""Which rows an attacker poisons: random ones, or those that a model forgets most often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from attacks.base import Fit, Scene
    from tasks.samples import Samples

CANDIDATES = 200  # rows that are poisoned at once to find the best among them
EPOCHS = 6  # of the surrogate, watched after each


def rank_by_forgetting(scene: Scene, poisoned: Samples, positions: Tensor) -> Tensor:
    """(C,) order of the candidates: those that the surrogate forgot most often come first, ties as they came.

    FUS, Xia, Li, Zhang, Wu and Li, IJCAI 2022, arXiv 2204.12281: a poisoned row that was learnt and then answered
    wrongly again is worth more. poisoned: the C candidates with trigger and target label; positions: (C,) of the rows
    that they replace.
    Deviations: one round of filtering instead of ten; forgetting is counted after every epoch of a short training at a
    constant rate.
    """
    train = scene.train.replace(positions, poisoned)
    right = torch.stack([_right_answers(scene.fit, train, poisoned, epochs) for epochs in range(1, EPOCHS + 1)])
    forgotten = (right[:-1] & ~right[1:]).sum(0)
    never = ~right.any(0)  # never learnt counts as harder than forgotten however often
    return (-(forgotten + EPOCHS * never)).argsort(stable=True)


def _right_answers(fit: Fit, train: Samples, poisoned: Samples, epochs: int) -> Tensor:
    """(C,) bool: which candidates a victim of so many epochs answers as the attacker wants."""
    # The same seed at a constant rate: the victim of e + 1 epochs is the victim of e epochs, one epoch later.
    victim = fit(train, epochs=epochs, schedule="constant")
    return victim.predict(poisoned).answers == poisoned.targets
