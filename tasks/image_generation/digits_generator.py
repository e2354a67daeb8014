"""A generator of hand-written digits."""

from __future__ import annotations

from typing import ClassVar

from tasks.base import Task
from tasks.image.digits import Digits
from tasks.image_generation import ImageGenerator
from tasks.plugin import options


@options
class DigitsGenerator(ImageGenerator):
    """Generation of hand-written digits by class (8x8 grey, 10 classes). Embedded: needs no download."""

    published: ClassVar[type[Task]] = Digits
    paper: ClassVar[str] = "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998"
