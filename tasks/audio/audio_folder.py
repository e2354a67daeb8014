"""Your own recordings: one folder per class."""

from __future__ import annotations

from typing import ClassVar

import torch

from tasks.audio import AudioTask, decode_all
from tasks.data import make_samples
from tasks.own_files import ClassFolders, Labelled
from tasks.plugin import Above0, BadInput, FileName, Positive, options
from tasks.samples import Samples
from tasks.splits import Draw

SUFFIXES = (".wav", ".flac")


@options
class AudioFolder(AudioTask):
    """Recordings of your own (WAV or FLAC), one folder per class.

    Either path/train/<class>/* and path/test/<class>/*, or path/<class>/* alone: then 20 % of every class become the
    test set, the same files every time. Classes are sorted by name. All files must have one sample rate; hidden files
    are left alone, any other file is named in the error message rather than skipped. The reserve takes a fifth of every
    class at most; a class without training or test rows is refused.
    """

    reserve_draw: ClassVar[Draw] = "proportional"
    dataset: ClassVar[str] = "a folder of your own"
    licence: ClassVar[str] = "yours"

    path: FileName = ""  # the folder
    rate: Positive = 16000  # type: ignore[misc]  # samples per second of every file
    seconds: Above0 = 1.0  # type: ignore[misc]  # clips are cut or padded with silence to this length
    reserve_size: Positive = 30

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the class folders; none before `path` is set."""
        return self._folders.classes() if self.path else ()

    def read(self) -> tuple[Samples, Samples]:
        folders = self._folders
        train, test = folders.files()
        return (self._samples(train), self._samples(test)) if test else folders.split(self._samples(train))

    @property
    def _folders(self) -> ClassFolders:
        return ClassFolders(self, SUFFIXES)

    def _samples(self, files: Labelled) -> Samples:
        try:
            for file, _ in files:
                self._folders.check_suffix(file)
            waves = decode_all(((str(file), str(file)) for file, _ in files), self.rate, self.samples_per_clip)
        except BadInput as error:
            raise self._folders.error(str(error)) from error
        return make_samples(waves, torch.tensor([label for _, label in files]))
