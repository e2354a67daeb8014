"""Sounds for tests, and what is heard in them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine(hz: float, rate: int, seconds: float = 1.0, amplitude: float = 0.3) -> Tensor:
    return amplitude * torch.sin(2 * math.pi * hz * torch.arange(round(rate * seconds)) / rate)


def loudest_hz(wave: Tensor, rate: int) -> float:
    spectrum = torch.fft.rfft(wave * torch.hann_window(len(wave)), n=8 * len(wave)).abs()
    return spectrum.argmax().item() * rate / (8 * len(wave))
