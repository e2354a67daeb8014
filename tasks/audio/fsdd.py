"""Spoken digits: six speakers, 8 kHz."""

from __future__ import annotations

from typing import ClassVar

from tasks.audio import AudioTask, decode_clips
from tasks.data import as_targets, columns, dataset_dict, make_samples
from tasks.plugin import Positive, options
from tasks.samples import Samples
from tasks.sources import number_sources


@options
class Fsdd(AudioTask):
    """Free Spoken Digit Dataset (8 kHz, 1 s, 10 classes, 6 speakers).

    The published split: takes 0 to 4 of every speaker and digit are the test set. The same six people speak in both
    splits. Clips are cut or padded with silence to one second; 99 % of them are shorter. `data_sources: real` are the
    speakers.
    """

    dataset: ClassVar[str] = "mteb/free-spoken-digit-dataset"
    revision: ClassVar[str] = "c34455c99604d35cb8d27328c267be1478efc903"
    folder: ClassVar[str] = "fsdd"
    licence: ClassVar[str] = "CC BY-SA 4.0"
    paper: ClassVar[str] = "Jackson et al., Free Spoken Digit Dataset v1.0.10, 2018, doi 10.5281/zenodo.1342401"
    classes: ClassVar[tuple[str, ...]] = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    rate: ClassVar[int] = 8000

    epochs: Positive = 10
    batch_size: Positive = 64

    def read(self) -> tuple[Samples, Samples]:
        splits = dataset_dict(self.dataset, self.folder, revision=self.revision)
        parts = []
        for name in ("train", "test"):
            (labels,) = columns(splits[name], "fsdd", "label")
            inputs = decode_clips(splits[name], self.rate, self.samples_per_clip, "fsdd")
            targets = as_targets(labels, len(self.classes), f"dataset 'fsdd', {name} split")
            sources = None
            if self.data_sources == "real":
                sources = number_sources(*columns(splits[name], "fsdd", "speaker"))
            parts.append(make_samples(inputs, targets, sources=sources))
        return parts[0], parts[1]
