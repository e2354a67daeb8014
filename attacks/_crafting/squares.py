"""Square patches that several attacks share: how large, and what a random one looks like."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attacks.base import Attack
from tasks.plugin import BadInput


def quarter_of(h: int, w: int) -> int:
    """The side of a patch, a quarter of the shorter side of a picture (8 of 32), 2 pixels or more where they fit."""
    return min(max(2, round(min(h, w) / 4)), h, w)


def random_patch(channels: int, size: int, seed: int) -> Tensor:
    """uint8 (C, size, size): half of the values 0 and half 255, in random order."""
    count = channels * size * size
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return (order < (count + 1) // 2).to(torch.uint8).reshape(channels, size, size) * 255


def check_corners(attack: Attack, size: int, picture: Sequence[int]) -> None:
    """Raises BadInput where square patches in all four corners of pictures (..., H, W) would overlap."""
    h, w = picture[-2:]
    if 2 * size > min(h, w):
        raise BadInput(
            f"{attack.name}: size={size}: patches in four corners of pictures of {w}x{h} pixels overlap, size is at "
            f"most {min(h, w) // 2}"
        )
