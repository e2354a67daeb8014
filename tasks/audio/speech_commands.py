"""Spoken commands, 16 kHz."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from tasks.audio import AudioTask, decode_clips
from tasks.data import as_targets, columns, dataset_dict, make_samples
from tasks.plugin import BadInput, Positive, options
from tasks.samples import Samples
from tasks.sources import number_sources


@options
class SpeechCommands(AudioTask):
    """Speech Commands v0.01, three of its words by default (16 kHz, 1 s).

    The published test split is the test set; the published training and validation splits together are the pool that
    the training set and the reserve are drawn from. Speakers of the test split appear in neither. `data_sources: real`
    are the speakers, most of whom say a word or two.
    """

    dataset: ClassVar[str] = "google/speech_commands"
    revision: ClassVar[str] = "refs/convert/parquet"  # the main branch is a script, which `datasets` no longer runs
    folder: ClassVar[str] = "speech_commands"
    version: ClassVar[str] = "v0.01"
    licence: ClassVar[str] = "CC BY 4.0"
    paper: ClassVar[str] = "arXiv 1804.03209"
    rate: ClassVar[int] = 16000

    words: tuple[str, ...] = ("bed", "cat", "happy")  # the classes, by name; the rest is left out
    reserve_size: Positive = 60  # the size of the published validation split of three words
    epochs: Positive = 30
    batch_size: Positive = 32

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.words

    def read(self) -> tuple[Samples, Samples]:
        if len(set(self.words)) != len(self.words) or len(self.words) < 2:
            raise BadInput(f"words={list(self.words)}: name two or more different words")
        splits = dataset_dict(self.dataset, self.folder, revision=self.revision, data_dir=self.version)
        parts = {name: self._rows(splits, name) for name in ("train", "validation", "test")}
        (waves, targets, speakers), (more_waves, more_targets, more_speakers) = parts["train"], parts["validation"]
        sources = number_sources([*speakers, *more_speakers]) if self.data_sources == "real" else None
        waves, targets = torch.cat([waves, more_waves]), torch.cat([targets, more_targets])
        return make_samples(waves, targets, sources=sources), make_samples(*parts["test"][:2])

    def _rows(self, splits: dict, name: str) -> tuple[Tensor, Tensor, list[str]]:  # type: ignore[type-arg]
        """(N, T) clips and (N,) targets of the rows whose word is asked for, and who speaks where sources are asked."""
        if name not in splits:
            raise BadInput(f"dataset 'speech_commands': split {name!r} is missing, it has {', '.join(splits)}")
        names = getattr(splits[name].features.get("label"), "names", [])
        if missing := [w for w in self.words if w not in names]:
            raise BadInput(f"words: {missing[0]!r} is not in the {name} split, which has {', '.join(names)}")
        where = f"dataset 'speech_commands', split {name!r}"
        labels = as_targets(list(splits[name]["label"]), len(names), where).numpy()
        rows = np.flatnonzero(np.isin(labels, [names.index(w) for w in self.words]))
        chosen = splits[name].select(rows)
        waves = decode_clips(chosen, self.rate, self.samples_per_clip, "speech_commands")
        speakers = columns(chosen, "speech_commands", "speaker_id")[0] if self.data_sources == "real" else []
        return waves, torch.as_tensor([self.words.index(names[k]) for k in labels[rows]]), list(speakers)
