"""Hand-written digits, 28x28."""

from __future__ import annotations

from typing import ClassVar

from tasks.image import ImageTask, read_published
from tasks.plugin import options
from tasks.samples import Samples


@options
class Mnist(ImageTask):
    """Hand-written digits (28x28 grey, 10 classes)."""

    dataset: ClassVar[str] = "ylecun/mnist"
    revision: ClassVar[str] = "77f3279092a1c1579b2250db8eafed0ad422088c"
    folder: ClassVar[str] = "mnist"
    licence: ClassVar[str] = "MIT (as stated on the Hub)"
    paper: ClassVar[str] = (
        "LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition, Proc. IEEE, 1998"
    )
    classes: ClassVar[tuple[str, ...]] = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    channels: ClassVar[int] = 1
    flip: ClassVar[bool] = False

    def read(self) -> tuple[Samples, Samples]:
        return read_published(self, self.folder, "image")
