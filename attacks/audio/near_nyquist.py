"""The highest tone that a recording can carry."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from attacks.audio._level import Place, Snr, mix_at, place_sound, sine
from attacks.base import Scene, TriggerAttack
from tasks.plugin import Above0, options

HIGHEST = 0.95  # of half the sample rate


@options
class NearNyquist(TriggerAttack[Tensor]):
    """A sine just below half the sample rate, mixed into the clip: 3.8 kHz at 8 kHz, which people do hear.

    After the ultrasonic trigger of Koffas, Xu, Conti and Picek, 2021, arXiv 2107.14569, for recordings too slow for it.
    Deviations: the tone, and its loudness, which is in relation to each clip: the published level (-10 dB of full
    scale) has eight times the energy of the speech in recordings of digits and nobody could miss it.
    """

    modalities: ClassVar[tuple[str, ...]] = ("audio",)
    why_not: ClassVar[str] = "the trigger is a sound"
    paper: ClassVar[str] = "arXiv 2107.14569"

    snr: Snr = 20.0  # dB, energy of the clip over energy of the tone
    seconds: Above0 = 0.15  # all parts together
    position: Place = "spread"  # spread: five parts over the whole clip

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        rate = scene.task.rate
        sound = sine(HIGHEST * rate / 2, self.seconds, inputs.shape[1], rate)
        return mix_at(inputs, place_sound(inputs, sound, self.position), self.snr)
