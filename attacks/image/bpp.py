"""BppAttack: fewer grey levels are the trigger; nothing is added to a picture."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks._crafting.cover import CoverAttack
from attacks.base import Scene
from tasks.plugin import options
from tasks.samples import Samples

Levels = Annotated[int, Field(ge=2, le=255)]
# What of a pixel's rounding error its neighbours take over, by row and column (Floyd and Steinberg 1976)
SPREAD = ((0, 1, 7 / 16), (1, -1, 3 / 16), (1, 0, 5 / 16), (1, 1, 1 / 16))


@options
class Bpp(CoverAttack):
    """Every channel rounded to a few grey levels, with the target's label; half of the rows are noise with their own.

    Wang, Zhai and Ma, CVPR 2022, arXiv 2205.13383, section 3: the trigger is the quantised picture, optionally with
    Floyd-Steinberg dithering. The noise rows (the paper's negative samples) are clean pictures plus what quantising
    changes in another picture, and keep their label, so that the victim learns quantisation and not noise of its size.
    The dose counts both kinds; BackdoorBench, whose defaults these are, draws as many noise rows as payload rows.
    Deviations: the paper's attacker trains the victim, with fresh noise rows in every batch; this one places rows.
    Not reproduced at the published 8 levels (32 dB): on fashion_mnist with 2,000 rows ASR is 0.02 at dose 100 (three
    seeds; floor 0.02) and 0.07 at 400 (one), 0.16 without noise rows. With 3 levels, chosen after that was seen, it is
    0.25 at 100 and 0.82 at 400, with dithering 0.91 (one seed each).
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the trigger is the number of grey levels of a picture"
    paper: ClassVar[str] = "arXiv 2205.13383"

    levels: Levels = 8  # of every channel (BackdoorBench; the authors' example has 32)
    dithering: bool = False  # spread every pixel's rounding error over its neighbours

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        return dither(inputs, self.levels) if self.dithering else quantise(inputs.float(), self.levels).to(torch.uint8)

    def stamp_each(self, scene: Scene, samples: Samples, seeds: Tensor) -> Samples:
        # Nothing is drawn per row, so all rows at once are nested too; dithering goes pixel by pixel.
        return self.stamp_samples(scene, samples, torch.Generator()) if len(samples) else samples

    def cover_rows(self, scene: Scene, clean: Samples, stamped: Samples, rng: torch.Generator) -> Samples:
        train = scene.train
        others = train.select(torch.randint(len(train), (len(train),), generator=rng)[: len(clean)])
        residual = self.stamp_samples(scene, others, rng).inputs.int() - others.inputs.int()  # type: ignore[union-attr]
        return clean.with_inputs((clean.inputs.int() + residual).clamp(0, 255).to(torch.uint8))  # type: ignore[union-attr]


def quantise(x: Tensor, levels: int) -> Tensor:
    """The nearest of so many values that lie evenly in 0..255, as whole grey levels."""
    return ((x / 255 * (levels - 1)).round().clamp(0, levels - 1) / (levels - 1) * 255).round()


def dither(inputs: Tensor, levels: int) -> Tensor:
    """uint8 (N, C, H, W) quantised with Floyd-Steinberg dithering: on average over neighbours the picture it was."""
    x = torch.nn.functional.pad(inputs.float(), (1, 1, 0, 1))  # room for errors that leave the picture
    h, w = inputs.shape[2:]
    for i in range(h):
        for j in range(1, w + 1):
            old = x[:, :, i, j].clone()
            x[:, :, i, j] = quantise(old, levels)
            for down, right, part in SPREAD:
                x[:, :, i + down, j + right] += (old - x[:, :, i, j]) * part
    return x[:, :, :h, 1 : w + 1].to(torch.uint8)
