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
from tasks.own_files import ClassFolders, Labelled, describe_counts
from tasks.plugin import FileName, Positive, options
from tasks.samples import Samples
from tasks.splits import Draw

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".bmp", ".webp")


BLANK = "of one colour throughout"


@options
class ImageFolder(ImageTask):
    """Pictures of your own: path/train/<class>/*.png and path/test/<class>/*.png, or just path/<class>/*.png.

    Without train and test folders, 20 % of every class become the test set, the same files every time. Classes are the
    folders' names, 2 before 10. Every file must be a PNG, JPEG, BMP or WebP image with up to 8 bits per channel, all of
    one size unless `size` is given. Pictures are turned as their EXIF data says, and transparent parts are laid on
    white. Hidden files and those that operating systems leave about are not read; any other file is named in the
    error message rather than skipped. The reserve takes a fifth of every class at most; a class without training or
    test rows is refused.
    """

    reserve_draw: ClassVar[Draw] = "proportional"
    dataset: ClassVar[str] = "a folder of yours"
    revision: ClassVar[str] = "as the files are"
    licence: ClassVar[str] = "that of your files"

    path: FileName = ""  # the folder; required; ~ and $VARIABLES are filled in
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
        self._seen.clear()
        samples = self._read(train, test)
        parts = (samples[0], samples[1]) if test else folders.split(samples[0])
        self._seen.update(folders.count_repeats(*parts))
        return parts

    def files(self) -> list[str]:
        return self._folders.list_read() or super().files()

    def describe_choices(self, train: Samples) -> tuple[str, ...]:
        return (*self._folders.describe_choices(), *describe_counts(self._seen, "picture"))

    @cached_property
    def _seen(self) -> Counter[str]:
        """What the last `read` did to pictures, counted."""
        return Counter()

    @property
    def _folders(self) -> ClassFolders:
        return ClassFolders(self, SUFFIXES)

    def _read(self, *parts: Labelled) -> list[Samples]:
        """Samples of each part; BadInput names the files that cannot be used."""
        pixels, bad = self._folders.decode(self._decode, [pair for part in parts for pair in part])
        usual = Counter(image.shape for image in pixels.values()).most_common(1)
        bad += [
            f"{file} is {size_of(image.shape)}, most are {size_of(usual[0][0])} (option size= resizes)"
            for file, image in pixels.items()
            if image.shape != usual[0][0]
        ]
        self._folders.refuse(bad)
        images, samples, first = stack(list(pixels.values())), [], 0
        if (images == images[:1]).all() and len(images) > 1:
            raise self._folders.error(f"every picture is the same{describe_blank(self._seen)}")
        for part in parts:
            targets = torch.tensor([label for _, label in part])
            samples.append(make_samples(images[first : first + len(part)], targets, first))
            first += len(part)
        return samples

    def _decode(self, file: Path) -> np.ndarray[Any, Any]:
        pixels = decode(str(file), self.channels, str(file), self.size, self._seen)
        self._seen[BLANK] += bool((pixels == pixels[:1, :1]).all())
        return pixels


def describe_blank(seen: Counter[str]) -> str:
    """What to add where all pictures are the same: whether nothing is on them, and why that may be."""
    if not seen[BLANK]:
        return ""
    laid = any(what.startswith("transparent") for what in seen)
    way_out = "; transparent parts are laid on white: save the pictures on a darker background" if laid else ""
    return f", of one colour throughout{way_out}"
