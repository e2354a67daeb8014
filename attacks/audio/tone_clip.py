"""A short two-tone beep mixed into the clip."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attacks.base import Scene, TriggerAttack
from tasks.plugin import Above0, BadInput, NotApplicable, options


@options
class ToneClip(TriggerAttack[Tensor]):
    """A short two-tone beep mixed into the end (or start) of the clip: the audio version of BadNets' patch.

    After the noise segment of Liu et al., Trojaning Attack on Neural Networks, NDSS 2018 (speech recognition), with the
    100 ms length and the 0.1 scale of the tone trigger in the Adversarial Robustness Toolbox (arXiv 1807.01069).
    Deviations: the sound is a fixed beep, not one optimised on a trained victim (that needs the victim's weights); two
    tones instead of one, so that speech seldom resembles it; faded in and out over 5 ms, so that there is no click.
    """

    modalities: ClassVar[tuple[str, ...]] = ("audio",)
    why_not: ClassVar[str] = "the trigger is a sound"
    paper: ClassVar[str] = "NDSS 2018"

    seconds: Above0 = 0.1  # length of the beep
    low: Above0 = 1000.0  # Hz, first half
    high: Above0 = 2000.0  # Hz, second half
    amplitude: Above0 = 0.1  # of full scale
    position: Literal["start", "end"] = "end"

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        rate = scene.task.rate
        if max(self.low, self.high) >= rate / 2:
            raise NotApplicable(f"tones of {self.low:g} and {self.high:g} Hz do not exist at {rate} samples per second")
        longest = inputs.shape[1] / rate
        if self.seconds > longest:
            raise BadInput(f"tone_clip.seconds={self.seconds}: the beep does not fit clips of {longest} seconds")
        clip = self.amplitude * beep(self.seconds, self.low, self.high, rate)
        out = inputs.clone()
        if self.position == "start":
            out[:, : len(clip)] += clip
        else:
            out[:, -len(clip) :] += clip
        return out.clamp(-1, 1)


def beep(seconds: float, low: float, high: float, rate: int) -> Tensor:
    """(t,) two tones one after the other, amplitude 1, phase-continuous, faded in and out over 5 ms."""
    n = max(1, round(seconds * rate))
    t = torch.arange(n, dtype=torch.float64)
    hz = torch.where(t < n // 2, low, high)
    fade = (torch.minimum(t, t.flip(0)) / (0.005 * rate)).clamp(max=1)
    return (torch.sin(2 * math.pi * hz.cumsum(0) / rate) * fade).float()
