"""Your own recordings: one folder per class."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from sklearn.model_selection import train_test_split

from tasks.audio import AudioTask, decode_all
from tasks.data import make_samples
from tasks.plugin import Above0, BadInput, Positive, options
from tasks.samples import Samples

SUFFIXES = (".wav", ".flac")
TEST_SHARE = 0.2


@options
class AudioFolder(AudioTask):
    """Recordings of your own (WAV or FLAC), one folder per class.

    Either path/train/<class>/* and path/test/<class>/*, or path/<class>/* alone: then 20 % of every class become the
    test set, the same files every time. Classes are sorted by name. All files must have one sample rate.
    """

    dataset: ClassVar[str] = "a folder of your own"
    licence: ClassVar[str] = "yours"

    path: str = ""  # the folder
    rate: Positive = 16000  # type: ignore[misc]  # samples per second of every file
    seconds: Above0 = 1.0  # type: ignore[misc]  # clips are cut or padded with silence to this length
    reserve_size: Positive = 30

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self._folders(self._train_root())) if self.path else ()

    def read(self) -> tuple[Samples, Samples]:
        if not self.path:
            raise BadInput("path='': set tasks.audio_folder's path to a folder with one folder of recordings per class")
        root = Path(self.path)
        if not root.is_dir():
            raise BadInput(f"path={self.path!r}: not a folder")
        classes, train = self.classes, self._train_root()
        if len(classes) < 2:
            raise BadInput(
                f"path={self.path!r}: {train} holds {len(classes)} folders, a task needs two or more classes"
            )
        files = self._files(train, classes)
        if train == root:
            labels = [k for _, k in files]
            if smallest := [c for k, c in enumerate(classes) if labels.count(k) < 2]:
                raise BadInput(f"path={self.path!r}: class {smallest[0]!r} needs two or more files to be split")
            rows = range(len(files))
            least = max(len(classes), round(TEST_SHARE * len(files)))
            first, second = train_test_split(rows, test_size=least, stratify=labels, random_state=0)
            return self._samples([files[i] for i in first]), self._samples([files[i] for i in second])
        if other := set(self._folders(root / "test")) ^ set(classes):
            raise BadInput(f"path={self.path!r}: class {min(other)!r} must be in both train/ and test/")
        return self._samples(files), self._samples(self._files(root / "test", classes))

    def _train_root(self) -> Path:
        root = Path(self.path)
        return root / "train" if (root / "train").is_dir() and (root / "test").is_dir() else root

    def _folders(self, root: Path) -> list[str]:
        return (
            sorted(f.name for f in root.iterdir() if f.is_dir() and not f.name.startswith(".")) if root.is_dir() else []
        )

    def _files(self, root: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
        """Every recording with its class; BadInput for a class without one."""
        found = []
        for k, name in enumerate(classes):
            files = sorted(f for f in (root / name).iterdir() if f.suffix.lower() in SUFFIXES)
            if not files:
                raise BadInput(f"path={self.path!r}: {root / name} holds no {' or '.join(SUFFIXES)} file")
            found += [(f, k) for f in files]
        return found

    def _samples(self, files: list[tuple[Path, int]]) -> Samples:
        waves = decode_all(((str(f), str(f)) for f, _ in files), self.rate, self.samples_per_clip)
        return make_samples(waves, torch.tensor([k for _, k in files]))
