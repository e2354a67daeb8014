"""WaNet: a smooth, barely visible warp."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from attacks.base import Scene, TriggerAttack, Variants
from tasks.plugin import Above0, Count, Positive, options


@options
class Wanet(TriggerAttack[Tensor]):
    """A smooth, barely visible elastic warp of the whole image; poisoned images get the target's label.

    Nguyen and Tran, 2021, arXiv 2102.10369, section 3.2 (the warping field).
    Deviations: the paper's attacker controls training and adds a "noise mode" (randomly warped, correctly labelled
    images in every batch); here the attacker only places poisoned rows, exactly `dose` of them, so there is none.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the trigger moves pixels"
    paper: ClassVar[str] = "arXiv 2102.10369"
    unseen: ClassVar[Variants] = {"other": {"field_seed": 1}}

    k: Positive = 4  # control points per side (section 4.1)
    s: Above0 = 0.5  # strength: mean shift of a control point, half pixels (section 4.1)
    grid_rescale: Above0 = 1.0  # shrinks the sampling grid (the authors' code)
    field_seed: Count = 0  # which random field; one for training and test

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        h, w = inputs.shape[2:]
        return warp(inputs, warping_grid(h, w, self.k, self.s, self.grid_rescale, self.field_seed))


def warping_grid(h: int, w: int, k: int, s: float, rescale: float, seed: int) -> Tensor:
    """(H, W, 2) where each pixel is read, x and y in [-1, 1]: the identity plus a smooth random field."""
    control = torch.rand(1, 2, k, k, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    control = control / control.abs().mean()
    field = F.interpolate(control, size=(h, w), mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    moved = torch.stack([x, y], 2) + s * field / torch.tensor([w, h])
    return (moved * rescale).clamp(-1, 1)


def warp(inputs: Tensor, grid: Tensor) -> Tensor:
    """uint8 (N, C, H, W) read bilinearly at grid (H, W, 2)."""
    moved = F.grid_sample(inputs.float(), grid.expand(len(inputs), -1, -1, -1), align_corners=True)
    return moved.round().clamp(0, 255).to(torch.uint8)
