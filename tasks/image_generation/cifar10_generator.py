"""A generator of small colour photographs."""

from __future__ import annotations

from typing import ClassVar

from tasks.base import Task
from tasks.image.cifar10 import Cifar10
from tasks.image_generation import ImageGenerator
from tasks.plugin import Positive, options


@options
class Cifar10Generator(ImageGenerator):
    """Generation of small colour photographs by class (32x32, 10 classes)."""

    published: ClassVar[type[Task]] = Cifar10
    paper: ClassVar[str] = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, 2009"

    train_size: Positive | None = 1000
    test_size: Positive | None = 500
    base_size: Positive | None = 5000
    base_epochs: Positive = 20
    referee_size: Positive | None = 10_000
    patch: Positive = 2
