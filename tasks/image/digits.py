"""Hand-written digits, 8x8, embedded in scikit-learn: no download."""

from __future__ import annotations

from typing import ClassVar

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tasks.data import make_samples
from tasks.image import ImageTask
from tasks.plugin import Positive, options
from tasks.samples import Samples


@options
class Digits(ImageTask):
    """Hand-written digits (8x8 grey, 10 classes), embedded: needs no download.

    The 1797 published images are split 80/20, stratified, once and for all. Intensities 0..16 are scaled to 0..255.
    """

    dataset: ClassVar[str] = "embedded"
    revision: ClassVar[str] = "scikit-learn's load_digits"
    licence: ClassVar[str] = "CC BY 4.0 (UCI Machine Learning Repository)"
    paper: ClassVar[str] = "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998"
    classes: ClassVar[tuple[str, ...]] = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    channels: ClassVar[int] = 1
    flip: ClassVar[bool] = False

    epochs: Positive = 20
    batch_size: Positive = 96

    def read(self) -> tuple[Samples, Samples]:
        images, labels = load_digits(return_X_y=True)
        train, test = train_test_split(range(len(labels)), test_size=0.2, stratify=labels, random_state=0)
        inputs = torch.as_tensor(images / 16 * 255).round().to(torch.uint8).reshape(-1, 1, 8, 8)
        targets = torch.as_tensor(labels)
        everything = make_samples(inputs, targets)
        return everything.select(train), everything.select(test)
