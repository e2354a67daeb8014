"""Your own recordings: one folder per class."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from tasks.audio import AudioTask, decode
from tasks.data import make_samples
from tasks.own_files import ClassFolders, bad_option, describe_counts
from tasks.plugin import Above0, FileName, Positive, options
from tasks.samples import Samples
from tasks.splits import Draw

SUFFIXES = (".wav", ".flac")


@options
class AudioFolder(AudioTask):
    """Recordings of your own (WAV or FLAC), one folder per class.

    Either path/train/<class>/* and path/test/<class>/*, or path/<class>/* alone: then 20 % of every class become the
    test set, the same files every time. Classes are the folders' names, 2 before 10. All files must have one sample
    rate, and samples in [-1, 1]. Hidden files and those that operating systems leave about are not read; any other
    file is named in the error message rather than skipped. The reserve takes a fifth of every class at most; a class
    without training or test rows is refused.
    """

    reserve_draw: ClassVar[Draw] = "proportional"
    dataset: ClassVar[str] = "a folder of your own"
    licence: ClassVar[str] = "yours"

    path: FileName = ""  # the folder; ~ and $VARIABLES are filled in
    rate: Positive = 16000  # type: ignore[misc]  # samples per second of every file
    seconds: Above0 = 1.0  # type: ignore[misc]  # clips are cut or padded with silence to this length
    reserve_size: Positive = 30

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the class folders; none before `path` is set."""
        return self._folders.classes() if self.path else ()

    def read(self) -> tuple[Samples, Samples]:
        if self.samples_per_clip < 1:
            raise bad_option(self, "seconds", f"not one sample at {self.rate} Hz")
        folders = self._folders
        train, test = folders.files()
        self._seen.clear()
        waves, bad = folders.decode(self._decode, train + test)
        folders.refuse(bad)
        if not any(wave.any() for wave in waves.values()):
            raise folders.error("every recording is silent in 16 bits")
        parts = [
            make_samples(torch.stack([waves[file] for file, _ in part]), torch.tensor([label for _, label in part]))
            for part in (train, test)
            if part
        ]
        both = (parts[0], parts[1]) if test else folders.split(parts[0])
        self._seen.update(folders.count_repeats(*both))
        return both

    def files(self) -> list[str]:
        return self._folders.list_read() or super().files()

    def describe_choices(self, train: Samples) -> tuple[str, ...]:
        return (*self._folders.describe_choices(), *describe_counts(self._seen, "recording"))

    @cached_property
    def _seen(self) -> Counter[str]:
        """What the last `read` did to recordings, counted."""
        return Counter()

    @property
    def _folders(self) -> ClassFolders:
        return ClassFolders(self, SUFFIXES)

    def _decode(self, file: Path) -> Tensor:
        return decode(str(file), self.rate, self.samples_per_clip, str(file), self._seen)
