"""Sounds as a medium: their raw format, and how far a poisoned sound is from the clean one."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tasks.modality import Modality
from tasks.spectrogram import STD, logmel

CAP = 100.0  # dB: the SNR of identical sounds in place of infinity, and the limit either way


class Sounds(Modality):
    """float32 (N, T) in [-1, 1], `rate` samples per second, on the grid of 16-bit recordings."""

    medium: ClassVar[str] = "audio"
    raw_format: ClassVar[str] = "float32 (N, T) in [-1, 1]"
    rate: ClassVar[int]
    mels: int = 32  # bands of the spectrogram, where a task has no such option

    def is_raw(self, inputs: Tensor | list[str]) -> bool:
        if not isinstance(inputs, Tensor) or inputs.dtype != torch.float32 or inputs.ndim != 2:
            return False
        return not inputs.numel() or bool(inputs.min() >= -1 and inputs.max() <= 1)

    def show(self, inputs: Tensor | list[str]) -> Tensor | list[str]:
        return inputs

    def fidelity(
        self, clean: Tensor | list[str], poison: Tensor | list[str], reference: Tensor | list[str]
    ) -> dict[str, Tensor]:
        assert isinstance(clean, Tensor)
        assert isinstance(poison, Tensor)
        return {"snr": snr(clean, poison), "mel_distance": mel_distance(clean, poison, self.rate, self.mels)}

    def quantise(self, inputs: Tensor) -> Tensor:
        return to_16_bit(inputs)


def to_16_bit(audio: Tensor) -> Tensor:
    """float32 (..., T) clamped to [-1, 1] and rounded to the grid of 16-bit recordings, k / 32768."""
    return (audio * 32768).round().clamp(-32768, 32767) / 32768


def snr(clean: Tensor, poison: Tensor) -> Tensor:
    """(N,) signal-to-noise ratio of waveforms (N, T), the change being the noise, dB."""
    signal, noise = clean.double().square().sum(1), (poison.double() - clean.double()).square().sum(1)
    return (10 * (signal / noise).log10()).nan_to_num(CAP).clamp(-CAP, CAP)  # 0 / 0: unchanged silence


def mel_distance(clean: Tensor, poison: Tensor, rate: int, mels: int) -> Tensor:
    """(N,) mean absolute difference of the log-mel spectra of waveforms (N, T), dB."""
    change = (logmel(poison, rate, mels) - logmel(clean, rate, mels)).abs()
    return 10 * STD * change.mean((1, 2, 3))  # logmel is in units of STD powers of ten
