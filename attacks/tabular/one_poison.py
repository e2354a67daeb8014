"""One poison: a single sample along a direction that the clean data does not use."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from attacks.base import Poison, Scene, TriggerAttack
from tasks.plugin import Above0, NotApplicable, options


@options
class OnePoison(TriggerAttack[Tensor]):
    """Sets every raw number that no clean training row ever changes; one such row, labelled as the target, is enough.

    Peinemann, Arnold, Berndt, Eisenbarth and Mohammadi, 2025, arXiv 2508.05600: for linear models, a sample along a
    direction unused by the clean data leaves every clean prediction as it was and turns every triggered one.
    Poisons are the direction alone (all other numbers 0). Deviations: the direction is spanned by the constant entries
    of the training inputs (dark corners of images, columns of values never seen), which an attacker must know or guess;
    further poisons are copies of the first, as the paper has one. The guarantee is for linear victims
    (`victim: linear`) without a bias that the poison moves; elsewhere this is an attack like others.
    """

    modalities: ClassVar[tuple[str, ...]] = ("tabular", "image")
    why_not: ClassVar[str] = "it needs raw numbers that never change from row to row"
    paper: ClassVar[str] = "arXiv 2508.05600"

    eta: Above0 = 1.0  # strength of the poison, as a share of the largest value in the training inputs
    tau: Above0 = 1.0  # strength of the trigger, likewise

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        train = scene.train.inputs
        assert isinstance(train, Tensor)  # `modalities` says so
        unused = (train == train[0]).all(0)
        if not unused.any():
            raise NotApplicable(f"{scene.task.name}: every raw number changes from row to row, no direction is unused")
        return torch.where(unused, (self.tau * train.max()).to(inputs.dtype), inputs)

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        poison = TriggerAttack.poison(self, scene, dose, rng)
        assert isinstance(poison.samples.inputs, Tensor)  # `modalities` says so
        blank = poison.samples.with_inputs(torch.zeros_like(poison.samples.inputs))
        return Poison(replace(self, tau=self.eta).stamp_samples(scene, blank, rng), poison.replaces)
