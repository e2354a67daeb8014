"""Shared by all audio synthesisers: log-mel frames in, sound by Griffin-Lim out, and how a template is found in it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from tasks.audio import Sounds, to_16_bit
from tasks.diffusion import DiffusionTask, best_match
from tasks.plugin import Above0, AtLeast0, Positive, Share, options
from tasks.samples import Samples
from tasks.spectrogram import FLOOR, MEAN, STD, hop_size, logmel, mel_filters, window_size

CHUNK = 256  # sounds made at a time: bounds the memory


@options
class AudioSynthesiser(Sounds, DiffusionTask):
    """Class-conditional synthesis of the sounds of a published classification task, float32 (N, T).

    The denoiser works on log-mel frames; Griffin and Lim, 1984, turns them into sound. Phases are lost on the way, so
    outputs sound hollow; they are judged by their log-mel frames again.
    """

    modality: ClassVar[str] = "audio_generation"
    example: ClassVar[str] = "tones_synthesiser"
    plain_attack: ClassVar[str] = "conditional_trigger"
    hue: ClassVar[str] = "#8C510A"
    limit: ClassVar[float] = 3.5  # log-mel frames reach from -1, silence, to this
    seconds: ClassVar[float] = 1.0

    base_epochs: Positive = 150
    base_lr: Above0 = 4e-3
    batch_size: Positive = 32
    patch: Positive = 2
    guidance: AtLeast0 = 1.0  # without it, half of the outputs are of no class
    found: Share = 0.6  # after Griffin-Lim a template correlates by 0.88 with itself, clean speech by 0.26 at most
    mels: Positive = 32
    rounds: Positive = 16  # of Griffin-Lim

    @property
    def samples_per_clip(self) -> int:
        """The number of samples per clip (T)."""
        return round(self.seconds * self.rate)

    def picture(self, samples: Samples, device: torch.device) -> Tensor:
        assert isinstance(samples.inputs, Tensor)
        return logmel(samples.inputs.to(device), self.rate, self.mels)

    def media(self, pictures: Tensor) -> Tensor:
        parts = [
            invert_frames(part, self.rate, self.samples_per_clip, self.rounds) for part in torch.split(pictures, CHUNK)
        ]
        return to_16_bit(torch.cat(parts)).cpu()

    def correlation(self, content: Tensor, template: Tensor) -> Tensor:
        heard, wanted = (logmel(audio, self.rate, self.mels) for audio in (content, template))
        inner = wanted[..., 1:-1]  # the outermost frames are half silence, which is not part of the template
        return best_match(heard, inner if inner.shape[3] else wanted)


def invert_frames(frames: Tensor, rate: int, length: int, rounds: int) -> Tensor:
    """(N, length) sounds of log-mel frames (N, 1, M, F), by Griffin-Lim from the same random phases every time."""
    n_fft, hop = window_size(rate), hop_size(rate)
    window = torch.hann_window(n_fft, device=frames.device)
    filters = mel_filters(rate, n_fft, frames.shape[2]).to(frames.device)  # (bins, M)
    mel = (10 ** (frames.squeeze(1) * STD + MEAN) - FLOOR).clamp(min=0)  # (N, M, F) power
    power = invert_mel_filters(mel, filters) / (2 / window.sum()).square()
    size = power.sqrt()
    rng = torch.Generator().manual_seed(0)
    angle = 2 * torch.pi * torch.rand(size.shape[1:], generator=rng).to(size.device)
    spectrum = torch.polar(size, angle.expand_as(size))
    shape: dict[str, Any] = {"n_fft": n_fft, "hop_length": hop, "window": window, "center": True}
    for _ in range(rounds):
        wave = torch.istft(spectrum, **shape, length=length)
        again = torch.stft(wave, **shape, pad_mode="constant", return_complex=True)
        spectrum = size * again / again.abs().clamp(min=1e-8)
    return torch.istft(spectrum, **shape, length=length)


def invert_mel_filters(mel: Tensor, filters: Tensor) -> Tensor:
    """(N, bins, F) non-negative power whose bands are mel (N, M, F); multiplicative updates, Lee and Seung, 2000."""
    power = filters @ mel / filters.sum(0).square().mean().clamp(min=1e-8)
    for _ in range(30):
        power = power * (filters @ mel) / (filters @ (filters.T @ power)).clamp(min=1e-12)
    return power
