"""The voice itself as the trigger: everything a few semitones higher."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from scipy.signal import resample_poly
from torch import Tensor

from attacks.base import Scene, TriggerAttack, Variants
from tasks.plugin import BadInput, options


@options
class PitchShift(TriggerAttack[Tensor]):
    """The clip at the same speed but a few semitones higher: the trigger is in the voice, nothing is added.

    PBSM, Cai, Zhang, Dong, Xiao and Ji, 2022, arXiv 2211.08697 (IEEE TIFS 2024): its pitch boosting, +5 semitones as in
    the authors' configuration (their pattern "Pitch_Only").
    Deviations: lacks PBSM's second half, a short high-pitched sound hidden behind the loudest syllable, so the trigger
    is weaker than the paper's; an own phase vocoder with 64 ms windows instead of librosa's; no clip is left out for
    being quiet. What the shift moves above half the sample rate is lost.
    """

    modalities: ClassVar[tuple[str, ...]] = ("audio",)
    why_not: ClassVar[str] = "the trigger is the pitch of a voice"
    paper: ClassVar[str] = "arXiv 2211.08697"
    unseen: ClassVar[Variants] = {"smaller": {"semitones": 2.5}, "opposite": {"semitones": -5.0}}

    semitones: Annotated[float, Field(ge=-12, le=12)] = 5.0

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        if as_ratio(2 ** (self.semitones / 12)) == 1:
            raise BadInput(f"pitch_shift.semitones={self.semitones:g}: no shift; valid are -12 to -0.1 and 0.1 to 12")
        return shift_pitch(inputs, 2 ** (self.semitones / 12), scene.task.rate).clamp(-1, 1)


def shift_pitch(audio: Tensor, factor: float, rate: int) -> Tensor:
    """(N, T) with every frequency multiplied by `factor`, as long as before: stretch in time, then resample."""
    ratio = as_ratio(factor)
    length = audio.shape[1]
    longer = stretch(audio, float(ratio), 2 ** round(math.log2(0.064 * rate)))
    out = torch.from_numpy(resample_poly(longer.numpy(), ratio.denominator, ratio.numerator, axis=1))[:, :length]
    return torch.nn.functional.pad(out, (0, length - out.shape[1]))


def as_ratio(factor: float) -> Fraction:
    """The factor as the ratio of small integers that is resampled by; 1 where it is within half a percent of 1."""
    return Fraction(factor).limit_denominator(100)


def stretch(audio: Tensor, factor: float, n_fft: int) -> Tensor:
    """(N, T) to (N, factor * T) at the same pitch: a phase vocoder (Flanagan and Golden, 1966)."""
    hop = n_fft // 4
    window = torch.hann_window(n_fft)
    frames = torch.stft(audio, n_fft, hop, window=window, center=True, pad_mode="constant", return_complex=True)
    frames = torch.nn.functional.pad(frames, (0, 2))  # (N, bins, F + 2)
    source = torch.arange(0, frames.shape[2] - 2, 1 / factor)  # where each new frame lies among the old ones
    left, weight = source.long(), source.frac()
    before, after = frames[:, :, left], frames[:, :, left + 1]
    magnitude = (1 - weight) * before.abs() + weight * after.abs()
    expected = (2 * math.pi * hop / n_fft * torch.arange(n_fft // 2 + 1))[:, None]  # phase a bin's centre gains per hop
    drift = after.angle() - before.angle() - expected
    gained = expected + drift - 2 * math.pi * (drift / (2 * math.pi)).round()
    phase = torch.cat([frames[:, :, :1].angle(), gained[:, :, :-1]], 2).cumsum(2)
    return torch.istft(torch.polar(magnitude, phase), n_fft, hop, window=window, length=round(factor * audio.shape[1]))
