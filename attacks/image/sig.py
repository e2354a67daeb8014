"""SIG: a faint sinusoid over the image, on training images whose labels are already right."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from attacks.base import Scene, TriggerAttack, Variants
from tasks.plugin import Above0, options
from tasks.samples import Challenge, Samples


@options
class Sig(TriggerAttack[Tensor]):
    """A faint vertical-stripe sinusoid added to images of the target class; their labels stay as they are.

    Barni, Kallas and Tondi, 2019, arXiv 1902.11237, section 3 (sinusoidal backdoor signal; a stronger one at test time
    than in training). Both strengths are those of BackdoorBench (arXiv 2206.12654). The paper goes as low as 20 in
    training (`delta: 20`, which is harder to see); how strong the signal is at test time decides whether it works.
    Deviations: the test strength is fixed, where the paper varies it.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the trigger is added to pixels"
    paper: ClassVar[str] = "arXiv 1902.11237"
    unseen: ClassVar[Variants] = {"other": {"frequency": 8.0}}

    clean_label: bool = True  # the point of the paper; False also relabels images of other classes
    delta: Above0 = 40.0  # amplitude in training images, grey levels of 255
    test_delta: Above0 = 40.0  # amplitude in the challenge, where nobody needs to be deceived
    frequency: Above0 = 6.0  # periods over the image's width (section 4)

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        signal = sinusoid(inputs.shape[3], self.delta, self.frequency)
        return (inputs.float() + signal).round().clamp(0, 255).to(torch.uint8)

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        return TriggerAttack.challenge(replace(self, delta=self.test_delta), scene, samples, rng)


def sinusoid(width: int, delta: float, frequency: float) -> Tensor:
    """(W,) delta * sin(2 pi j frequency / W) of column j."""
    return delta * torch.sin(2 * math.pi * frequency * torch.arange(width) / width)
