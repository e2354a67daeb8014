"""Shared by all audio classification tasks: reading clips, log-mel encoding, augmentation and the victim."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from tasks._models.ge2e import GE2E, WEIGHTS, GE2ENet, find_weights, mel_frames
from tasks._models.logmel import LogMelCNN
from tasks.audio._decode import decode
from tasks.audio._sounds import Sounds
from tasks.base import Recipe, Task, warn_of_base
from tasks.plugin import Above0, BadInput, Positive, options
from tasks.samples import Samples
from tasks.spectrogram import logmel

if TYPE_CHECKING:
    from datasets import Dataset

SHIFT = 2  # frames of 20 ms that a clip may move in training
MASKED_FRAMES, MASKED_BANDS = 4, 3  # widest mask; mild, so that a trigger of few frames or bands is still learnt


@options
class AudioTask(Sounds, Task):
    """Audio float32 (N, T) on the 16-bit grid; the victim reads log-mel frames (N, 1, M, F).

    "cnn" is a small network, trained from scratch. "ge2e" is a pre-trained encoder of speakers (Apache-2.0, from the
    package resemblyzer) and needs `frozen: body`: only a new head is trained, on the features of recordings as they
    are, without augmentation. It hears 40 bands up to 8 kHz, whatever `mels` says.
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
    victim: Literal["cnn", "ge2e"] = "cnn"  # "ge2e" is pre-trained
    frozen: Literal["none", "body"] = "none"  # "body": only a new head is trained; for a pre-trained victim
    head_lr: Above0 = 1e-2  # peak learning rate of the head on a frozen body

    def __post_init__(self) -> None:
        if self.frozen == "body" and self.victim != GE2E:
            raise BadInput(f"frozen='body': victim={self.victim!r} is trained from scratch; use {GE2E!r}")
        if self.frozen == "none" and self.victim == GE2E:
            raise BadInput(
                f"victim={GE2E!r}: add frozen='body'; training all of it takes 30 times as long and reads no better"
            )
        if self.frozen == "body" and self.augmentation == "strong":
            raise BadInput(
                "augmentation='strong': a frozen body reads every recording once, as it is; leave one of them out"
            )

    @property
    def samples_per_clip(self) -> int:
        """The number of samples per clip (T)."""
        return round(self.seconds * self.rate)

    def files(self) -> list[str]:
        """What the options name, the data, and the weights of a pre-trained victim."""
        return [*super().files(), *([find_weights()] if self.victim == GE2E else [])]

    def describe_base(self) -> tuple[str, ...]:
        """A warning where all victims share one pre-trained network."""
        if self.victim != GE2E:
            return ()
        return (warn_of_base(f"victim={GE2E}, SHA-256 of its weights {WEIGHTS[:12]}"),)

    def recipe(self) -> Recipe:
        recipe = super().recipe()
        return replace(recipe, lr=self.head_lr, augment=False) if self.frozen == "body" else recipe

    def model(self) -> nn.Module:
        classes = len(self.classes)
        return GE2ENet(classes) if self.victim == GE2E else LogMelCNN(classes, self.width)

    def encode(self, samples: Samples, device: torch.device) -> Tensor:
        audio = samples.inputs.to(device)  # type: ignore[union-attr]
        return mel_frames(audio, self.rate) if self.victim == GE2E else logmel(audio, self.rate, self.mels)

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
