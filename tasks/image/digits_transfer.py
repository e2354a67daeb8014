"""Digits 5 to 9 learnt on top of a network that has only seen 0 to 4."""

from __future__ import annotations

from typing import ClassVar

from tasks.image import ImageTask
from tasks.image._transfer import TransferTask
from tasks.image.digits import Digits
from tasks.plugin import options


@options
class DigitsTransfer(TransferTask):
    """Transfer learning on hand-written digits: 5 to 9 by a new head on a body trained on 0 to 4. Embedded."""

    published: ClassVar[type[ImageTask]] = Digits
    paper: ClassVar[str] = "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998"
    old: ClassVar[tuple[int, ...]] = (0, 1, 2, 3, 4)
