"""Witches' Brew: images of the wanted class whose training gradient is that of the target under the wanted label."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from attacks._crafting.gradients import match_gradients
from attacks.base import Scene, Trial
from attacks.targeted import BlockAttack
from tasks.plugin import Above0, Count, Positive, options
from tasks.samples import Samples


@options
class WitchesBrew(BlockAttack):
    """Images of the wanted class, nudged until learning them teaches that the target is of that class too.

    Geiping, Fowl, Huang, Czaja, Taylor, Moeller and Goldstein, 2021, arXiv 2009.02276, section 3 (algorithm 1):
    gradient matching with restarts on one clean surrogate of another seed; numbers are the defaults of the authors'
    code. On a transfer task the gradient is that of the head, all that its victims train.
    Deviations: the paper crafts all poisons of a trial together; here doses are nested, so rows are crafted in fixed
    blocks of 50, and a dose that ends within a block takes its first rows. No ensemble.
    Not reproduced here: on fashion_mnist, 2,000 images, one restart, none of 20 trials was won with 10 or 50 poisons
    (label_flip: 0 and 2); the paper poisons 500 of 50,000 images and trains larger networks for longer.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the perturbation is added to pixels"
    paper: ClassVar[str] = "arXiv 2009.02276"

    clean_label: Literal[True] = True  # the bases are of the wanted class and keep their labels
    eps: Above0 = 16.0  # largest change of a pixel, grey levels of 255 (section 4)
    steps: Count = 250  # of signed Adam; 0 leaves the random start, a control of equal norm
    step: Above0 = 6.0  # grey levels; the authors' 0.1 in units of CIFAR-10's spread
    restarts: Positive = 8  # random starts, of which the one of least mismatch is kept
    layers: Literal["all", "head"] | None = None  # whose gradient is matched; None: of what the victim trains
    block: Positive = 50  # rows whose mean gradient is matched

    def craft_block(self, scene: Scene, trial: Trial, rows: Samples, rng: torch.Generator) -> Samples:
        recipe = scene.task.recipe()
        module = scene.fit(scene.train).module
        x = scene.task.encode(trial.target, scene.device)
        return match_gradients(
            rows, x, torch.tensor([trial.wanted], device=x.device), lambda n, rows: module,
            scene.task.augment if recipe.augment else lambda x, _: x,
            eps=self.eps, steps=self.steps, step=self.step, retrain=0,
            layers=self.layers or ("head" if recipe.frozen == "body" else "all"), restarts=self.restarts, rng=rng,
        )  # fmt: skip
