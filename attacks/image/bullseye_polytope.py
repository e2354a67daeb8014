"""Bullseye Polytope: images of the wanted class whose features, on average, are those of the target."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from attacks._crafting.features import read_features, surround, to_float
from attacks._crafting.gradients import with_grey_levels
from attacks.base import Scene, Trial
from attacks.targeted import BlockAttack
from tasks.plugin import Above0, Count, Positive, options
from tasks.samples import Samples


@options
class BullseyePolytope(BlockAttack):
    """Images of the wanted class, nudged together until the mean of their features is that of the target.

    Aghakhani, Meng, Wang, Kruegel and Vigna, 2021, arXiv 2005.00191, section 3,
    for linear transfer learning with one substitute network: a clean victim of another seed, whose body on a transfer
    task is the very body that all victims share (white box).
    Deviations: the distance is squared, as the paper writes it (the authors' code, and with it the Adversarial
    Robustness Toolbox, lowers the plain norm); 300 steps, where the distance has converged (the authors take 4,000);
    the paper crafts all poisons of a trial together, here doses are nested, so rows are crafted in fixed blocks of the
    paper's five, and a dose that ends within a block takes its first rows, whose mean is not on the target.
    Measured on cifar10_transfer, 20 trials: five poisons win 20, 20 and 8 with 200, 500 and 2,000 training rows
    (label_flip: 3, none and 1; without poison none, none and 1), 25 win all (results/targeted).
    On digits_transfer with 400 rows the bound is too tight for 8x8 images: 25 poisons won 4 of 24 trials
    (label_flip: 7), with eps=64 16.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the perturbation is added to pixels"
    paper: ClassVar[str] = "arXiv 2005.00191"

    clean_label: Literal[True] = True  # the bases are of the wanted class and keep their labels
    eps: Above0 = 25.5  # largest change of a pixel, grey levels of 255 (0.1, section 4)
    steps: Count = 300  # of Adam; 0 leaves the bases as they are
    step: Above0 = 2.0  # learning rate, grey levels; the authors' 0.04 in units of CIFAR-10's spread
    block: Positive = 5  # rows whose mean is moved (the paper's number of poisons)

    def craft_block(self, scene: Scene, trial: Trial, rows: Samples, rng: torch.Generator) -> Samples:
        module = scene.fit(scene.train).module
        goal = read_features(module, to_float(trial.target, scene.device))
        bases = to_float(rows, scene.device)
        return with_grey_levels(rows, surround(module, bases, goal, eps=self.eps, steps=self.steps, step=self.step))
