"""Small colour photographs, 32x32."""

from __future__ import annotations

from typing import ClassVar

from tasks.image import ImageTask, read_published
from tasks.plugin import Positive, options
from tasks.samples import Samples


@options
class Cifar10(ImageTask):
    """Small colour photographs of animals and vehicles (32x32, 10 classes)."""

    dataset: ClassVar[str] = "uoft-cs/cifar10"
    revision: ClassVar[str] = "0b2714987fa478483af9968de7c934580d0bb9a2"
    folder: ClassVar[str] = "cifar10"
    licence: ClassVar[str] = "no formal licence; released by the authors for research"
    paper: ClassVar[str] = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, 2009"
    classes: ClassVar[tuple[str, ...]] = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    channels: ClassVar[int] = 3
    flip: ClassVar[bool] = True

    epochs: Positive = 12

    def read(self) -> tuple[Samples, Samples]:
        return read_published(self, self.folder, "img")
