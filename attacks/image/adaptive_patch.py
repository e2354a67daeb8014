"""Adaptive-Patch: four faint patches, one of them on each training image, and cover rows that keep their label."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks._crafting.cover import CoverAttack
from attacks._crafting.squares import check_corners, quarter_of, random_patch
from attacks.base import Scene, TriggerAttack, Variants
from tasks.plugin import Count, Positive, Share, options
from tasks.samples import Challenge, Samples

Opacities = Annotated[tuple[Share, ...], Field(min_length=4, max_length=4)]
Pieces = Annotated[int, Field(ge=1, le=4)]


@options
class AdaptivePatch(CoverAttack):
    """A patch in each corner, faint and one at a time in training, two at full strength at test time; with cover rows.

    Qi, Xie, Li, Mahloujifar and Mittal, ICLR 2023, "Revisiting the assumption of latent separability for backdoor
    defenses", section 4.2 (the Adaptive-Patch attack): payload rows carry one patch of four and the target's label,
    cover rows (the paper's regularisation samples) carry one and keep their label. Numbers are those of CIFAR-10: 0.3 %
    payload and 0.6 % cover rows, so that by default one row in three of a dose asks for the target.
    Deviations: four random black-and-white patches in the four corners, of a quarter of the side, where the authors
    have two corner logos and two squares of several sizes; test images carry the two of the greatest opacity. Payload
    and cover rows come from outside the target class, where the authors' code draws them from all classes.
    Seen on fashion_mnist with 2,000 rows, seeds 0, 1, 2: ASR 0.18 (0.05 to 0.26) at dose 30, of which 10 rows ask for
    the target, and 0.56 (0.39 to 0.72) at 100.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the triggers are patches of pixels"
    paper: ClassVar[str] = "Qi et al., Revisiting the Assumption of Latent Separability, ICLR 2023"
    unseen: ClassVar[Variants] = {"other": {"patch_seed": 1}}

    cover: Share = 2 / 3  # share of the dose that are cover rows; twice as many as payload rows
    opacities: Opacities = (0.5, 0.2, 0.5, 0.3)  # of the patches in training images
    test_opacities: Opacities = (1.0, 0.0, 1.0, 0.0)  # in test images, which carry all at once
    patches: Pieces = 1  # that a training image carries; drawn for each
    size: Positive | None = None  # side of a patch, pixels; None: a quarter of the shorter side (8 of 32)
    patch_seed: Count = 0  # which random patches; the same for training and test

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        h, w = inputs.shape[2:]
        size = quarter_of(h, w) if self.size is None else self.size
        check_corners(self, size, inputs.shape)
        carried = torch.rand(len(inputs), 4, generator=rng).argsort(1).argsort(1) < self.patches  # (N, 4)
        out = inputs.float()
        corners = [(top, left) for top in (0, h - size) for left in (0, w - size)]
        for i, (top, left) in enumerate(corners):
            alpha = (carried[:, i] * self.opacities[i])[:, None, None, None]
            patch = random_patch(inputs.shape[1], size, self.patch_seed + i)
            under = out[:, :, top : top + size, left : left + size]
            out[:, :, top : top + size, left : left + size] = (1 - alpha) * under + alpha * patch
        return out.round().to(torch.uint8)

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        at_test = replace(self, opacities=self.test_opacities, patches=4)
        return TriggerAttack.challenge(at_test, scene, samples, rng)
