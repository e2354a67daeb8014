"""How loud a trigger is, and where in a clip it sounds."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

Snr = Annotated[float, Field(ge=-100, le=200)]  # dB, energy of the whole clip over energy of the whole trigger
Place = Literal["start", "middle", "end", "speech", "spread"]  # "speech": over the loudest stretch of the clip

QUIETEST = 1e-3  # root mean square of full scale that a silent clip is taken to have
PARTS = 5  # of a trigger that is spread


def mix_at(inputs: Tensor, trigger: Tensor, snr: float) -> Tensor:
    """(N, T) clips with a trigger (N, T) or (T,) scaled to this signal-to-noise ratio in dB, clamped to [-1, 1]."""
    level = rms(inputs).clamp(min=QUIETEST) * 10 ** (-snr / 20)
    return (inputs + trigger * level / rms(trigger).clamp(min=1e-12)).clamp(-1, 1)


def rms(audio: Tensor) -> Tensor:
    """(..., 1) root mean square over the clip."""
    return audio.square().mean(-1, keepdim=True).sqrt()


def first_samples(inputs: Tensor, total: int, place: Place) -> Tensor:
    """(N,) where a trigger of `total` samples begins in each clip (N, T); at the end at most."""
    n, length = inputs.shape
    if place == "speech":
        energy = F.avg_pool1d(inputs.square()[:, None].double(), total, stride=1)[:, 0]  # (N, T - total + 1)
        return energy.argmax(1)
    return torch.full((n,), {"start": 0, "middle": (length - total) // 2, "end": length - total}[place])


def place_sound(inputs: Tensor, sound: Tensor, place: Place) -> Tensor:
    """(N, T) silence but for a sound (t,), placed in each clip (N, T); "spread": in five parts over the whole clip."""
    n, length = inputs.shape
    total = min(len(sound), length)
    if place == "spread":
        stride, part = math.ceil(length / PARTS), total // PARTS
        at = torch.arange(length)
        on = at % stride < part
        out = torch.zeros(length)
        out[on] = sound[: int(on.sum())]
        return out.expand(n, length)
    at = first_samples(inputs, total, place)[:, None] + torch.arange(total)
    return torch.zeros(n, length).scatter_(1, at, sound[:total].expand(n, total))


def sine(hz: float, seconds: float, longest: int, rate: int) -> Tensor:
    """(t,) a tone of amplitude 1 for so many seconds, and no more than `longest` samples."""
    t = torch.arange(min(round(seconds * rate), longest), dtype=torch.float64) / rate
    return torch.sin(2 * math.pi * hz * t).float()
