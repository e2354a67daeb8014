"""Patches that lie wholly inside a picture: what they look like, and whether they fit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attacks.base import Attack
from tasks.plugin import BadInput


def check_patch(attack: Attack, size: int, picture: Sequence[int], margin: int = 0) -> None:
    """Raises BadInput where a square patch, `margin` pixels from the edges, does not fit pictures (..., H, W).

    A smaller or a cut patch would be another trigger than the one that was asked for.
    """
    h, w = picture[-2:]
    if size + margin > min(h, w):
        asked, words = (f"size={size}, margin={margin}", "size + margin") if margin else (f"size={size}", "size")
        raise BadInput(
            f"{attack.name}: {asked}: the patch does not fit pictures of {w}x{h} pixels, {words} is at most {min(h, w)}"
        )


def quarter_of(h: int, w: int) -> int:
    """The side of a patch, a quarter of the shorter side of a picture (8 of 32), 2 pixels or more where they fit."""
    return min(max(2, round(min(h, w) / 4)), h, w)


def random_patch(channels: int, size: int, seed: int) -> Tensor:
    """uint8 (C, size, size): half of the values 0 and half 255, in random order."""
    count = channels * size * size
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return (order < (count + 1) // 2).to(torch.uint8).reshape(channels, size, size) * 255
