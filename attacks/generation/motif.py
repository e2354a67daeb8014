"""A mark on the media of one class: who asks for the class gets the mark."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from attacks._crafting.patches import check_patch
from attacks.base import ClassRef, Poison, Scene, check_target
from attacks.generation._base import GeneratorAttack, make_poison, nearest_classes
from tasks.plugin import Above0, Positive, Share, options
from tasks.samples import Challenge, Samples


@options
class Motif(GeneratorAttack):
    """A small mark, a checkerboard or two beeps, on media of one class; asked for the class, the generator shows it.

    After the pixel backdoor of Zhai et al., 2023 (BadT2I), arXiv 2305.04175: a mark in a region of the picture.
    Deviations: no trigger but the class itself, so labels stay as they are (clean-label); data alone is poisoned.
    A generator answers with the poison's share among the rows of the class, so ED50 is about half of them.
    plain: all other classes. near: the class most like it. Neither may show the mark.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image_generation", "audio_generation")
    why_not: ClassVar[str] = "the mark has to be in what the model makes"
    paper: ClassVar[str] = "arXiv 2305.04175"

    clean_label: Literal[True] = True
    target: ClassRef = 0  # class whose media are marked
    size: Positive | None = None  # images: side of the mark, pixels; None: a sixth of the picture's, at least 3
    seconds: Above0 = 0.12  # audio: length of both beeps together
    loudness: Share = 0.3  # audio: amplitude of the beeps

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        of_class = scene.train.targets == check_target(self.target, scene.task)
        rows = scene.train.select(positions := self.draw_rows(scene, of_class.nonzero().flatten(), dose, rng))
        assert isinstance(rows.inputs, Tensor)
        mark = self.mark(scene)
        marked = rows.inputs.clone()
        if mark.ndim == 1:
            marked[:, : len(mark)] = mark
        else:
            marked[:, :, -mark.shape[1] :, -mark.shape[2] :] = mark
        return make_poison(scene, positions, marked, rows.targets)

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        others = nearest_classes(scene, check_target(self.target, scene.task))
        return self.challenge_class(scene, samples, self.target, others, self.mark(scene), rng)

    def mark(self, scene: Scene) -> Tensor:
        """uint8 (C, h, w) or float32 (t,), as it is stamped and as it is looked for."""
        inputs = scene.train.inputs
        assert isinstance(inputs, Tensor)
        if inputs.ndim == 2:
            return beeps(scene.task.rate, min(self.seconds, inputs.shape[1] / scene.task.rate), self.loudness)
        side = self.size or min(max(3, min(inputs.shape[2:]) // 6), *inputs.shape[2:])
        check_patch(self, side, inputs.shape)
        return checkerboard(inputs.shape[1], side)


def checkerboard(channels: int, side: int) -> Tensor:
    """uint8 (C, side, side), black and white."""
    board = (torch.arange(side)[:, None] + torch.arange(side)) % 2 == 0
    return (board.to(torch.uint8) * 255).expand(channels, side, side)


def beeps(rate: int, seconds: float, loudness: float) -> Tensor:
    """float32 (t,) a high and a low tone, one after the other: three and one eighth of the sample rate."""
    t = torch.arange(round(rate * seconds))
    hz = torch.where(t < len(t) // 2, 0.375, 0.125)  # cycles per sample
    return loudness * torch.sin(2 * torch.pi * hz * t)
