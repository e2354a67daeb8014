"""Pictures of clothes, 28x28."""

from __future__ import annotations

from typing import ClassVar

from tasks.image import ImageTask, read_published
from tasks.plugin import Positive, options
from tasks.samples import Samples


@options
class FashionMnist(ImageTask):
    """Pictures of clothes (28x28 grey, 10 classes)."""

    dataset: ClassVar[str] = "zalando-datasets/fashion_mnist"
    revision: ClassVar[str] = "531be5e2ccc9dba0c201ad3ae567a4f3d16ecdd2"
    folder: ClassVar[str] = "fashion_mnist"
    licence: ClassVar[str] = "MIT"
    paper: ClassVar[str] = "arXiv 1708.07747"
    classes: ClassVar[tuple[str, ...]] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    channels: ClassVar[int] = 1
    flip: ClassVar[bool] = False

    epochs: Positive = 12

    def read(self) -> tuple[Samples, Samples]:
        return read_published(self, self.folder, "image")
