"""Shared by all audio classification tasks: reading clips, log-mel encoding, augmentation and the victim."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from tasks._models.logmel import LogMelCNN
from tasks.audio._decode import decode
from tasks.audio._sounds import Sounds
from tasks.base import Task
from tasks.plugin import BadInput, Positive, options
from tasks.samples import Samples
from tasks.spectrogram import logmel

if TYPE_CHECKING:
    from datasets import Dataset

SHIFT = 2  # frames of 20 ms that a clip may move in training
MASKED_FRAMES, MASKED_BANDS = 4, 3  # widest mask; mild, so that a trigger of few frames or bands is still learnt


@options
class AudioTask(Sounds, Task):
    """Audio float32 (N, T) on the 16-bit grid; the victim is a small CNN over log-mel frames (N, 1, M, F).

    Standard augmentation: a shift of up to 40 ms, then one stretch of frames and one of mel bands set to the mean.
    Strong augmentation: three times as far and wide.
    """

    modality: ClassVar[str] = "audio"
    example: ClassVar[str] = "synthetic_tones"
    plain_attack: ClassVar[str] = "tone_clip"
    hue: ClassVar[str] = "#009E73"
    seconds: ClassVar[float] = 1.0  # every clip is cut or padded with silence to this length

    mels: Positive = 32  # mel bands, up to half the sample rate
    width: Positive = 16  # channels of the CNN's first block

    @property
    def samples_per_clip(self) -> int:
        """The number of samples per clip (T)."""
        return round(self.seconds * self.rate)

    def model(self) -> nn.Module:

        return LogMelCNN(len(self.classes), self.width)

    def encode(self, samples: Samples, device: torch.device) -> Tensor:

        return logmel(samples.inputs.to(device), self.rate, self.mels)  # type: ignore[union-attr]

    def augment(self, x: Tensor, rng: torch.Generator) -> Tensor:
        times = 3 if self.augmentation == "strong" else 1
        x = shift_frames(x, times * SHIFT, rng)
        return mask_stretch(mask_stretch(x, 3, times * MASKED_FRAMES, rng), 2, times * MASKED_BANDS, rng)


def shift_frames(x: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """Move every clip (N, 1, M, F) by up to `most` frames; the edge frame is repeated."""
    n, _, _, f = x.shape
    by = torch.randint(-most, most + 1, (n, 1), generator=rng, device=x.device)
    at = (torch.arange(f, device=x.device) + by).clamp(0, f - 1)  # (N, F) where every frame comes from
    return x.gather(3, at[:, None, None, :].expand(x.shape))


def mask_stretch(x: Tensor, dim: int, widest: int, rng: torch.Generator) -> Tensor:
    """Set one stretch of 0 to `widest` entries along `dim` of x (N, 1, M, F) to zero, the mean."""
    n, size = len(x), x.shape[dim]
    width = torch.randint(0, widest + 1, (n, 1), generator=rng, device=x.device)
    start = (torch.rand(n, 1, generator=rng, device=x.device) * (size - width + 1)).long()
    at = torch.arange(size, device=x.device)
    kept = (at < start) | (at >= start + width)  # (N, size)
    return x * (kept[:, None, None, :] if dim == 3 else kept[:, None, :, None])


def decode_all(sources: Iterable[tuple[str, str | bytes]], rate: int, length: int) -> Tensor:
    """(N, T) of pairs: what to call a recording in an error message, and its file name or bytes."""
    return torch.stack([decode(source, rate, length, where) for where, source in sources])


def decode_clips(split: Dataset, rate: int, length: int, folder: str) -> Tensor:
    """(N, T) of a dataset's column `audio`, decoded from its bytes."""
    from datasets import Audio

    if "audio" not in split.column_names:
        raise BadInput(f"dataset {folder!r}: column 'audio' is missing, it has {', '.join(split.column_names)}")
    rows = split.select_columns("audio").cast_column("audio", Audio(decode=False))
    sources = (((cell := row["audio"] or {}).get("bytes") or cell.get("path") or b"") for row in rows)
    return decode_all(((f"dataset {folder!r}: row {i}", source) for i, source in enumerate(sources)), rate, length)
