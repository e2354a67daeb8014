"""Pictures of your own, one folder per class."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from tasks.data import make_samples
from tasks.image import ImageTask, decode, size_of, stack
from tasks.plugin import BadInput, Positive, options
from tasks.samples import Samples

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
NAMED = 5  # bad files named in a complaint


@options
class ImageFolder(ImageTask):
    """Pictures of your own: path/train/<class>/*.png and path/test/<class>/*.png, or just path/<class>/*.png.

    Without train and test folders, 20 % of every class become the test split, drawn with subset_seed. Classes are the
    folders' names in alphabetical order. Every file must be a PNG, JPEG, BMP or WebP image, all of one size unless
    `size` is given; hidden files are left alone, any other file is named in the complaint rather than skipped.
    """

    dataset: ClassVar[str] = "a folder of yours"
    revision: ClassVar[str] = "as the files are"
    licence: ClassVar[str] = "that of your files"

    path: str = ""  # the folder; required
    size: Positive | None = None  # resize to size x size pixels; None: the files must agree on a size
    colour: Literal["rgb", "grey"] = "rgb"
    flip: bool = True  # type: ignore[misc]  # mirroring as augmentation; False where a mirrored image is another class

    @cached_property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """The folder's classes; none before `path` is set."""
        return tuple(self._folders("train")) if self.path else ()

    @cached_property
    def channels(self) -> int:  # type: ignore[override]
        return 1 if self.colour == "grey" else 3

    def read(self) -> tuple[Samples, Samples]:
        if not self.path:
            raise BadInput("image_folder.path='': set it to a folder with one sub-folder of images per class")
        train_files = self._files("train")
        if self._is_split:
            train, test = self._read(train_files, self._files("test"))
            return train, test
        labels = [label for _, label in train_files]
        rows = range(len(labels))
        (everything,) = self._read(train_files)
        few = [c for i, c in enumerate(self.classes) if labels.count(i) < 2]
        if few:
            raise BadInput(
                f"image_folder.path={self.path!r}: class {few[0]!r} has one image; a split needs two or more"
            )
        test_rows = max(round(0.2 * len(rows)), len(self.classes))
        split = train_test_split(rows, test_size=test_rows, stratify=labels, random_state=self.subset_seed)
        return everything.select(split[0]), everything.select(split[1])

    @property
    def _is_split(self) -> bool:
        return (Path(self.path) / "train").is_dir() and (Path(self.path) / "test").is_dir()

    def _folders(self, split: str) -> dict[str, Path]:
        """Class name -> folder, of one split or of the whole."""
        top = Path(self.path) / split if self._is_split else Path(self.path)
        if not top.is_dir():
            raise BadInput(f"image_folder.path={self.path!r}: no such folder")
        found = {f.name: f for f in sorted(top.iterdir()) if f.is_dir() and not f.name.startswith(".")}
        if len(found) < 2:
            raise BadInput(f"image_folder.path={self.path!r}: {top} has {len(found)} class folders, it needs 2 or more")
        loose = [f.name for f in sorted(top.iterdir()) if f.suffix.lower() in SUFFIXES]
        if loose:
            raise BadInput(f"image_folder.path={self.path!r}: {top / loose[0]} lies outside the class folders")
        return found

    def _files(self, split: str) -> list[tuple[Path, int]]:
        """Every file with its class, in alphabetical order; BadInput for a class without files or an unknown class."""
        found = []
        for name, folder in self._folders(split).items():
            if name not in self.classes:
                raise BadInput(f"image_folder.path={self.path!r}: {folder} is no class of the train folder")
            files = [f for f in sorted(folder.iterdir()) if not f.name.startswith(".")]
            if not files:
                raise BadInput(f"image_folder.path={self.path!r}: {folder} holds no files")
            found += [(f, self.classes.index(name)) for f in files]
        return found

    def _read(self, *parts: list[tuple[Path, int]]) -> list[Samples]:
        """Samples of each part; BadInput names the files that cannot be used."""
        pixels: dict[Path, np.ndarray[Any, Any]] = {}
        bad: list[str] = []
        for file, _ in (pair for part in parts for pair in part):
            try:
                pixels[file] = self._decode(file)
            except BadInput as error:
                bad.append(str(error))
        usual = Counter(image.shape for image in pixels.values()).most_common(1)
        bad += [
            f"{file} is {size_of(image.shape)}, most are {size_of(usual[0][0])} (option size= resizes)"
            for file, image in pixels.items()
            if image.shape != usual[0][0]
        ]
        if bad:
            more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
            raise BadInput(f"image_folder.path={self.path!r}: " + "; ".join(bad[:NAMED]) + more)
        images, samples, first = stack(list(pixels.values())), [], 0
        for part in parts:
            targets = torch.tensor([label for _, label in part])
            samples.append(make_samples(images[first : first + len(part)], targets, first))
            first += len(part)
        return samples

    def _decode(self, file: Path) -> np.ndarray[Any, Any]:
        if file.suffix.lower() not in SUFFIXES:
            raise BadInput(f"{file} is not one of {', '.join(SUFFIXES)}")
        return decode(str(file), self.channels, str(file), self.size)
