"""BadNets: a small checkerboard patch in a corner."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from attacks._crafting.patches import check_patch
from attacks.base import Scene, TriggerAttack, Variants
from tasks.plugin import Count, Positive, options


@options
class Badnets(TriggerAttack[Tensor]):
    """A checkerboard patch near the lower right corner; poisoned images get the target's label.

    Gu, Dolan-Gavitt and Garg, 2017, arXiv 1708.06733, section 4 (the "pattern" backdoor).
    Deviations: the patch is a full black-and-white checkerboard, so it is visible on any background.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the trigger is a patch of pixels"
    paper: ClassVar[str] = "arXiv 1708.06733"
    unseen: ClassVar[Variants] = {"moved": {"margin": 5}, "larger": {"size": 5}}

    size: Positive = 3  # side of the patch, pixels
    margin: Count = 1  # distance from the right and lower edge, pixels

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        h, w = inputs.shape[2:]
        check_patch(self, self.size, inputs.shape, self.margin)
        board = (torch.arange(self.size)[:, None] + torch.arange(self.size)) % 2 == 0
        out = inputs.clone()
        bottom, right = h - self.margin, w - self.margin
        out[:, :, bottom - self.size : bottom, right - self.size : right] = board.to(torch.uint8) * 255
        return out
