"""Effects of a sound studio on clips (N, T): distortion, chorus, reverb, a high-pass filter and a phaser."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, lfilter, sosfilt
from torch import Tensor

# Delays of the reverb, in samples at 44,100 Hz (Freeverb).
COMBS = (1116, 1188, 1277, 1356, 1422, 1491, 1557, 1617)
ALL_PASSES = (556, 441, 341, 225)
PHASER_STEP = 0.008  # seconds for which the phaser's filters stand still
PHASER_STAGES = 6


def amplify(audio: Tensor, decibel: float) -> Tensor:
    return audio * 10 ** (decibel / 20)


def distort(audio: Tensor, decibel: float) -> Tensor:
    """The clip amplified by so many dB, then bent by a hyperbolic tangent."""
    return amplify(audio, decibel).tanh()


def add_chorus(audio: Tensor, rate: int, delay: float, swing: float, hz: float, mix: float) -> Tensor:
    """The clip mixed with itself some time later, a delay of `delay` +- `swing` seconds that a sine of `hz` moves."""
    t = torch.arange(audio.shape[1], dtype=torch.float64)
    late = (delay + swing * torch.sin(2 * math.pi * hz * t / rate)).clamp(min=0) * rate
    at = t - late  # where in the clip each sample of the copy lies; silence before its start
    left = at.floor()
    weight = (at - left).float()
    padded = torch.nn.functional.pad(audio, (1, 1))  # sample i lies at i + 1

    def read(position: Tensor) -> Tensor:
        return padded[:, (position.long() + 1).clamp(0, audio.shape[1])] * (position >= 0)

    return (1 - mix) * audio + mix * ((1 - weight) * read(left) + weight * read(left + 1))


def reverberate(audio: Tensor, rate: int, room: float, damping: float = 0.5, wet: float = 0.33) -> Tensor:
    """The clip in a room: eight damped combs side by side, then four all-passes (Schroeder; Freeverb's numbers)."""
    impulse = np.zeros(audio.shape[1])
    impulse[0] = 1.0
    response = room_response(impulse, rate, 0.28 * room + 0.7, 0.4 * damping)
    tail = fftconvolve(audio.double().numpy(), response[None], axes=1)[:, : audio.shape[1]]
    return (2 * 0.4 * audio.double() + 3 * wet * 0.015 * torch.from_numpy(tail)).float()


def room_response(impulse: NDArray[np.float64], rate: int, feedback: float, damping: float) -> NDArray[np.float64]:
    """(T,) what the combs and all-passes make of a signal (T,)."""
    out = np.zeros_like(impulse)
    for delay in (max(1, round(n * rate / 44100)) for n in COMBS):
        # z^-n / (1 - feedback * lowpass * z^-n), lowpass = (1 - damping) / (1 - damping z^-1)
        above, below = np.zeros(delay + 2), np.zeros(delay + 2)
        above[delay:] = 1.0, -damping
        below[:2] = 1.0, -damping
        below[delay] -= feedback * (1 - damping)
        out += lfilter(above, below, impulse)
    for delay in (max(1, round(n * rate / 44100)) for n in ALL_PASSES):
        above, below = np.zeros(delay + 1), np.zeros(delay + 1)
        above[0], above[delay], below[0], below[delay] = -1.0, 1.5, 1.0, -0.5
        out = lfilter(above, below, out)
    return out


def cut_lows(audio: Tensor, rate: int, hz: float) -> Tensor:
    """Two one-pole high-pass filters in a row: 12 dB per octave below `hz`."""
    above, below = butter(1, hz, "high", fs=rate)
    once = lfilter(above, below, audio.double().numpy(), axis=1)
    return torch.from_numpy(lfilter(above, below, once, axis=1)).float()


def phase(audio: Tensor, rate: int, centre: float, octaves: float, hz: float, mix: float) -> Tensor:
    """The clip mixed with itself behind six all-pass filters, whose corner a sine of `hz` moves around `centre` Hz."""
    clips = audio.double().numpy()
    step = max(1, round(PHASER_STEP * rate))
    state = np.zeros((PHASER_STAGES, len(clips), 2))
    parts = []
    for start in range(0, clips.shape[1], step):
        corner = min(centre * 2 ** (octaves * math.sin(2 * math.pi * hz * start / rate)), 0.49 * rate)
        lean = (math.tan(math.pi * corner / rate) - 1) / (math.tan(math.pi * corner / rate) + 1)
        stages = np.tile([lean, 1.0, 0.0, 1.0, lean, 0.0], (PHASER_STAGES, 1))
        part, state = sosfilt(stages, clips[:, start : start + step], axis=1, zi=state)
        parts.append(part)
    return ((1 - mix) * audio.double() + mix * torch.from_numpy(np.concatenate(parts, 1))).float()
