"""Adaptive-Blend: a blended trigger, a random half of it per training image, and cover rows that keep their label."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from attacks._crafting.cover import CoverAttack
from attacks.base import Scene, TriggerAttack, Variants
from attacks.image.blended import blend, random_pattern
from tasks.plugin import Count, Positive, Share, options
from tasks.samples import Challenge, Samples


@options
class AdaptiveBlend(CoverAttack):
    """A blended pattern of which every training image shows another half; half of the rows keep their true label.

    Qi, Xie, Li, Mahloujifar and Mittal, ICLR 2023, "Revisiting the assumption of latent separability for backdoor
    defenses" (the Adaptive-Blend attack): payload rows carry a part of the trigger and the target's label; cover rows
    (the paper's regularisation samples) carry one too and keep their label, so that the trigger's part alone does not
    pull an image into a corner of its own of the feature space. Test inputs carry the whole trigger.
    The dose counts both kinds: of `dose` poisoned rows floor(cover * dose) are cover rows, spread evenly (payload,
    cover, payload, ...), so at the default only half of a dose asks for the target. A defense is graded on both kinds.
    Deviations: a random pattern where the paper blends a picture of Hello Kitty; payload and cover rows come from
    outside the target class, where the authors' code draws them from all classes.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the trigger is mixed into pixels"
    paper: ClassVar[str] = "Qi et al., Revisiting the Assumption of Latent Separability, ICLR 2023"
    unseen: ClassVar[Variants] = {"other": {"pattern_seed": 1}}

    alpha: Share = 0.2  # weight of the pattern in test inputs (CIFAR-10)
    train_alpha: Share = 0.15  # weight of the pattern in training images (CIFAR-10)
    grid: Positive = 4  # the pattern is cut into grid x grid pieces (16 in the authors' code)
    kept: Share = 0.5  # share of the pieces that a training image shows (the authors' code masks half)
    cover: Share = 0.5  # share of the dose that are cover rows; conservatism ratio 0.5: as many as payload rows
    pattern_seed: Count = 0  # which random pattern; one for training and test

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        shown = random_pieces(len(inputs), inputs.shape[2], inputs.shape[3], self.grid, self.kept, rng)
        return torch.where(
            shown, blend(inputs, random_pattern(inputs.shape[1:], self.pattern_seed), self.train_alpha), inputs
        )

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        return TriggerAttack.challenge(replace(self, train_alpha=self.alpha, kept=1.0), scene, samples, rng)


def random_pieces(n: int, h: int, w: int, grid: int, kept: float, rng: torch.Generator) -> Tensor:
    """(N, 1, H, W) bool: per image another random choice of round(kept * grid^2) pieces of a grid x grid cut."""
    rank = torch.rand(n, grid * grid, generator=rng).argsort(1).argsort(1)
    piece = (torch.arange(h) * grid // h)[:, None] * grid + torch.arange(w) * grid // w  # (H, W)
    return (rank < round(kept * grid * grid))[:, piece][:, None]
