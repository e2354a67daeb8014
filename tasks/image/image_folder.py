"""Pictures of your own, one folder per class."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from tasks.data import make_samples
from tasks.image import ImageTask, decode, size_of, stack
from tasks.own_files import ClassFolders, Labelled
from tasks.plugin import BadInput, FileName, Positive, options
from tasks.samples import Samples
from tasks.splits import Draw

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
NAMED = 5  # bad files named in an error message


@options
class ImageFolder(ImageTask):
    """Pictures of your own: path/train/<class>/*.png and path/test/<class>/*.png, or just path/<class>/*.png.

    Without train and test folders, 20 % of every class become the test set, the same files every time. Classes are the
    folders' names in alphabetical order. Every file must be a PNG, JPEG, BMP or WebP image, all of one size unless
    `size` is given; hidden files are left alone, any other file is named in the error message rather than skipped. The
    reserve takes a fifth of every class at most; a class without training or test rows is refused.
    """

    reserve_draw: ClassVar[Draw] = "proportional"
    dataset: ClassVar[str] = "a folder of yours"
    revision: ClassVar[str] = "as the files are"
    licence: ClassVar[str] = "that of your files"

    path: FileName = ""  # the folder; required
    size: Positive | None = None  # resize to size x size pixels; None: the files must agree on a size
    colour: Literal["rgb", "grey"] = "rgb"
    flip: bool = True  # type: ignore[misc]  # mirroring as augmentation; False where a mirrored image is another class

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the class folders; none before `path` is set."""
        return self._folders.classes() if self.path else ()

    @cached_property
    def channels(self) -> int:  # type: ignore[override]
        return 1 if self.colour == "grey" else 3

    def read(self) -> tuple[Samples, Samples]:
        folders = self._folders
        train, test = folders.files()
        samples = self._read(train, test)
        return (samples[0], samples[1]) if test else folders.split(samples[0])

    @property
    def _folders(self) -> ClassFolders:
        return ClassFolders(self, SUFFIXES)

    def _read(self, *parts: Labelled) -> list[Samples]:
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
            raise self._folders.error("; ".join(bad[:NAMED]) + more)
        images, samples, first = stack(list(pixels.values())), [], 0
        for part in parts:
            targets = torch.tensor([label for _, label in part])
            samples.append(make_samples(images[first : first + len(part)], targets, first))
            first += len(part)
        return samples

    def _decode(self, file: Path) -> np.ndarray[Any, Any]:
        self._folders.check_suffix(file)
        return decode(str(file), self.channels, str(file), self.size)
