"""Quiet noise under the whole clip."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from attacks.audio._level import Snr, mix_at
from attacks.base import Scene, TriggerAttack, Variants
from tasks.plugin import Count, options


@options
class Ambient(TriggerAttack[Tensor]):
    """Quiet background noise under the whole clip, always the same piece of it, at a fixed signal-to-noise ratio.

    Closest published: DABA, Liu, Zhou, Cai and Tang, Opportunistic Backdoor Attacks, ACM Multimedia 2022, pages
    2390-2398, whose triggers are everyday sounds heard along with speech.
    Deviations: pink noise (power falling as 1/f) stands in for recorded everyday sounds; it is mixed at one fixed ratio
    to the clip's mean power; nothing is adapted to the clip or the victim. Read it as a baseline, not as DABA.
    """

    modalities: ClassVar[tuple[str, ...]] = ("audio",)
    why_not: ClassVar[str] = "the trigger is a sound"
    paper: ClassVar[str] = "ACM Multimedia 2022, 2390-2398"
    unseen: ClassVar[Variants] = {"other": {"pattern_seed": 1}}

    snr: Snr = 20.0  # dB, mean power of the clip over mean power of the noise
    pattern_seed: Count = 0  # which piece of noise

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        noise = pink_noise(inputs.shape[1], self.pattern_seed)
        return mix_at(inputs, noise, self.snr)


def pink_noise(length: int, seed: int) -> Tensor:
    """(T,) noise of unit mean power, whose power falls as 1/f; the same for the same seed."""
    white = torch.randn(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    spectrum = torch.fft.rfft(white)
    f = torch.arange(len(spectrum), dtype=torch.float64).clamp(min=1)
    shaped: Tensor = torch.fft.irfft(spectrum / f.sqrt() * (torch.arange(len(f)) > 0), n=length)  # no constant offset
    return shaped.div(shaped.square().mean().sqrt()).float()
