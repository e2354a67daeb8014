"""Blended injection: a faint pattern over the whole image."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from attacks.base import Scene, TriggerAttack, Variants
from tasks.plugin import Count, Share, options


@options
class Blended(TriggerAttack[Tensor]):
    """A fixed random pattern mixed faintly into the whole image; poisoned images get the target's label.

    Chen, Liu, Li, Lu and Song, 2017, arXiv 1712.05526, section 4.2.2 (blended injection with the random pattern).
    Deviations: the same alpha for training and test images (the paper also tries a stronger one at test time).
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the trigger is mixed into pixels"
    paper: ClassVar[str] = "arXiv 1712.05526"
    unseen: ClassVar[Variants] = {"other": {"pattern_seed": 1}, "weaker": {"alpha": 0.1}}

    alpha: Share = 0.2  # weight of the pattern; section 5.2 tries 0.2 in training
    pattern_seed: Count = 0  # which random pattern; one for training and test

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        return blend(inputs, random_pattern(inputs.shape[1:], self.pattern_seed), self.alpha)


def random_pattern(shape: torch.Size, seed: int) -> Tensor:
    """uint8 (C, H, W), every value drawn uniformly from 0..255."""
    return torch.randint(256, tuple(shape), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def blend(inputs: Tensor, pattern: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) * image + alpha * pattern, rounded, as uint8 (N, C, H, W)."""
    return ((1 - alpha) * inputs.float() + alpha * pattern.float()).round().clamp(0, 255).to(torch.uint8)
