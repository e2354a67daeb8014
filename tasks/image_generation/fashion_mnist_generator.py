"""A generator of pictures of clothes."""

from __future__ import annotations

from typing import ClassVar

from tasks.base import Task
from tasks.image.fashion_mnist import FashionMnist
from tasks.image_generation import ImageGenerator
from tasks.plugin import Positive, options


@options
class FashionMnistGenerator(ImageGenerator):
    """Generation of pictures of clothes by class (28x28 grey, 10 classes)."""

    published: ClassVar[type[Task]] = FashionMnist
    paper: ClassVar[str] = "arXiv 1708.07747"

    train_size: Positive | None = 1000
    test_size: Positive | None = 500
    base_size: Positive | None = 5000
    base_epochs: Positive = 20
    referee_size: Positive | None = 10_000
    patch: Positive = 2
