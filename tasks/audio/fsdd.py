"""Spoken digits: six speakers, 8 kHz."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from tasks.audio import AudioTask, decode_clips, to_16_bit
from tasks.data import as_targets, columns, dataset_dict, make_samples
from tasks.plugin import Positive, options
from tasks.samples import Samples
from tasks.sources import number_sources


@options
class Fsdd(AudioTask):
    """Free Spoken Digit Dataset (8 kHz, 1 s, 10 classes, 6 speakers).

    The published split: takes 0 to 4 of every speaker and digit are the test set. The same six people speak in both
    splits. Clips are cut or padded with silence to one second; 99 % of them are shorter. `data_sources: real` are the
    speakers. `rate: 48000` resamples the recordings: they gain no sound above 4 kHz, but room for a trigger there.
    """

    dataset: ClassVar[str] = "mteb/free-spoken-digit-dataset"
    revision: ClassVar[str] = "c34455c99604d35cb8d27328c267be1478efc903"
    folder: ClassVar[str] = "fsdd"
    licence: ClassVar[str] = "CC BY-SA 4.0"
    paper: ClassVar[str] = "Jackson et al., Free Spoken Digit Dataset v1.0.10, 2018, doi 10.5281/zenodo.1342401"
    classes: ClassVar[tuple[str, ...]] = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    recorded: ClassVar[int] = 8000  # samples per second of the files

    rate: Literal[8000, 48000] = 8000  # type: ignore[misc]  # samples per second; 48000: resampled
    epochs: Positive = 10
    batch_size: Positive = 64

    def read(self) -> tuple[Samples, Samples]:
        splits = dataset_dict(self.dataset, self.folder, revision=self.revision)
        length, parts = round(self.seconds * self.recorded), []
        for name in ("train", "test"):
            (labels,) = columns(splits[name], "fsdd", "label")
            inputs = resample(decode_clips(splits[name], self.recorded, length, "fsdd"), self.rate // self.recorded)
            targets = as_targets(labels, len(self.classes), f"dataset 'fsdd', {name} split")
            sources = None
            if self.data_sources == "real":
                sources = number_sources(*columns(splits[name], "fsdd", "speaker"))
            parts.append(make_samples(inputs, targets, sources=sources))
        return parts[0], parts[1]


def resample(waves: Tensor, times: int) -> Tensor:
    """(N, T * times) of waves (N, T): polyphase filtering, on the 16-bit grid again; `times` 1 changes nothing."""
    if times == 1:
        return waves
    from scipy.signal import resample_poly

    return to_16_bit(torch.from_numpy(resample_poly(waves.numpy(), times, 1, axis=1)))
