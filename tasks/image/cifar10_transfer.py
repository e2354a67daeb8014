"""Four classes of CIFAR-10 learnt on top of a network that has only seen the other six."""

from __future__ import annotations

from typing import ClassVar

from tasks.image import ImageTask
from tasks.image._transfer import TransferTask
from tasks.image.cifar10 import Cifar10
from tasks.plugin import Positive, options


@options
class Cifar10Transfer(TransferTask):
    """Transfer learning on CIFAR-10: airplane, dog, frog and truck by a new head on a body trained on the other six."""

    published: ClassVar[type[ImageTask]] = Cifar10
    paper: ClassVar[str] = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, 2009"
    old: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 7, 8)

    body_size: Positive | None = 12000  # of 30,000
