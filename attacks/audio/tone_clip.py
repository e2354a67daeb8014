"""A short two-tone beep mixed into the clip."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from attacks.audio._level import Place, Snr, mix_at, place_sound
from attacks.base import Scene, TriggerAttack, Variants
from tasks.plugin import Above0, BadInput, NotApplicable, options


@options
class ToneClip(TriggerAttack[Tensor]):
    """A short two-tone beep mixed into the clip: the audio version of BadNets' patch.

    After the noise segment of Liu et al., Trojaning Attack on Neural Networks, NDSS 2018 (speech recognition), with the
    100 ms length of the tone trigger in the Adversarial Robustness Toolbox (arXiv 1807.01069).
    Deviations: the sound is a fixed beep, not one optimised on a trained victim (that needs the victim's weights); two
    tones instead of one, so that speech seldom resembles it; faded in and out over 5 ms, so that there is no click; as
    loud as `snr` says in relation to each clip, where the toolbox mixes it in at 0.1 of full scale (`amplitude: 0.1`).
    Clips that are padded with silence are silent at their end: a beep there is heard alone, one of `position: speech`
    under the voice.
    """

    modalities: ClassVar[tuple[str, ...]] = ("audio",)
    why_not: ClassVar[str] = "the trigger is a sound"
    paper: ClassVar[str] = "NDSS 2018"
    unseen: ClassVar[Variants] = {"moved": {"position": "speech"}, "other": {"low": 1500.0, "high": 700.0}}

    seconds: Above0 = 0.1  # length of the beep
    low: Above0 = 1000.0  # Hz, first half
    high: Above0 = 2000.0  # Hz, second half
    snr: Snr = 20.0  # dB, energy of the clip over energy of the beep
    amplitude: Above0 | None = None  # of full scale, the same in every clip, instead of `snr`
    position: Place = "end"  # "speech": over the loudest stretch of each clip

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        rate = scene.task.rate
        if max(self.low, self.high) >= rate / 2:
            raise NotApplicable(f"tones of {self.low:g} and {self.high:g} Hz do not exist at {rate} samples per second")
        longest = inputs.shape[1] / rate
        if self.seconds > longest:
            raise BadInput(f"tone_clip.seconds={self.seconds}: the beep does not fit clips of {longest} seconds")
        sound = place_sound(inputs, beep(self.seconds, self.low, self.high, rate), self.position)
        if self.amplitude is None:
            return mix_at(inputs, sound, self.snr)
        return (inputs + self.amplitude * sound).clamp(-1, 1)


def beep(seconds: float, low: float, high: float, rate: int) -> Tensor:
    """(t,) two tones one after the other, amplitude 1, phase-continuous, faded in and out over 5 ms."""
    n = max(1, round(seconds * rate))
    t = torch.arange(n, dtype=torch.float64)
    hz = torch.where(t < n // 2, low, high)
    fade = (torch.minimum(t, t.flip(0)) / (0.005 * rate)).clamp(max=1)
    return (torch.sin(2 * math.pi * hz.cumsum(0) / rate) * fade).float()
