"""Log-mel frames of raw audio, differentiable."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

FLOOR = 1e-9  # power, relative to a full-scale sine: 90 dB below it, above the rounding noise of 16 bits
MEAN, STD = -7.0, 2.0  # of log10 power over speech; fixed, so that encoding needs no data
CHUNK = 1024  # clips transformed at a time: bounds the memory of the spectrum


def window_size(rate: int) -> int:
    """The power of two nearest to the number of samples in 32 ms."""
    return 1 << max(4, round(math.log2(0.032 * rate)))


def hop_size(rate: int) -> int:
    """The number of samples in 20 ms."""
    return max(1, rate // 50)


def hz_to_mel(hz: Tensor) -> Tensor:
    return 2595 * torch.log10(1 + hz / 700)


def mel_to_hz(mel: Tensor) -> Tensor:
    return 700 * (10 ** (mel / 2595) - 1)


@lru_cache(maxsize=8)
def mel_filters(rate: int, n_fft: int, mels: int) -> Tensor:
    """(n_fft // 2 + 1, mels) triangles of height 1, equally wide on the mel scale; the last one peaks at Nyquist.

    The usual bank ends with a triangle that is zero at Nyquist and so is nearly deaf just below it. Here the last
    centre is Nyquist itself, so the victim can hear whatever a recording can carry.
    """
    nyquist = torch.tensor(rate / 2, dtype=torch.float64)
    step = hz_to_mel(nyquist) / mels
    edges = mel_to_hz(
        step * torch.arange(mels + 2)
    )  # (M + 2,) left edge, centre and right edge of filter m: m, m + 1, m + 2
    hz = torch.linspace(0, rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (hz - left) / (centre - left), (right - hz) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0).float()


def logmel(audio: Tensor, rate: int, mels: int) -> Tensor:
    """(N, T) in [-1, 1] to (N, 1, M, F) roughly zero mean, unit spread; F = 1 + T // 20 ms. Differentiable."""
    n_fft = window_size(rate)
    window = torch.hann_window(n_fft, device=audio.device)
    filters = mel_filters(rate, n_fft, mels).to(audio.device)
    out = []
    for part in torch.split(audio, CHUNK):
        spectrum = torch.stft(
            part, n_fft, hop_size(rate), window=window, center=True, pad_mode="constant", return_complex=True
        )  # (n, bins, F)
        power = (spectrum.real.square() + spectrum.imag.square()) * (2 / window.sum()).square()
        mel = power.transpose(1, 2) @ filters  # (n, F, M)
        out.append(((mel + FLOOR).log10() - MEAN) / STD)
    return torch.cat(out).transpose(1, 2)[:, None]
