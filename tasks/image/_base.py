"""Shared by all image classification tasks: encoding, augmentation and the choice of victim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tasks._models.cnn import CNN
from tasks._models.linear import Linear
from tasks._models.torchvision_net import TorchvisionNet
from tasks.base import Task, load_unsealed
from tasks.data import as_targets, columns, dataset_dict, make_samples
from tasks.image._decode import decode, size_of, stack
from tasks.image._pictures import Pictures
from tasks.plugin import Above0, BadInput, Positive, options
from tasks.samples import Samples

if TYPE_CHECKING:
    from datasets import Dataset


@options
class ImageTask(Pictures, Task):
    """Images uint8 (N, C, H, W). Standard augmentation: a random crop after one pixel of reflected padding, and a flip.

    Strong augmentation: four times the padding, and a grey square of a quarter of the side anywhere in the image
    (cutout, DeVries and Taylor 2017, arXiv 1708.04552).

    The default augmentation is mild, so that a few dozen poisons can be learnt at all: on fashion_mnist, two pixels of
    padding and flips triple the dose that badnets needs, and do not improve accuracy.
    """

    modality: ClassVar[str] = "image"
    example: ClassVar[str] = "digits"
    plain_attack: ClassVar[str] = "badnets"
    hue: ClassVar[str] = "#D55E00"
    channels: ClassVar[int] = 3
    flip: ClassVar[bool] = True  # off where a mirrored image is another class (digits)
    pad: ClassVar[int] = 1  # pixels of the random crop

    lr: Above0 = 1e-2
    victim: str = "cnn"  # "cnn", "linear", or the name of a torchvision classifier such as "resnet18"
    width: Positive = 16  # channels of the CNN's first block

    def model(self) -> nn.Module:
        if self.victim == "cnn":
            return CNN(self.channels, len(self.classes), self.width)
        if self.victim == "linear":
            return Linear(load_unsealed(self).train.inputs[0].numel(), len(self.classes), scale=64)  # type: ignore[union-attr]

        return TorchvisionNet(self.victim, self.channels, len(self.classes))

    def encode(self, samples: Samples, device: torch.device) -> Tensor:
        return samples.inputs.to(device)  # type: ignore[union-attr]  # uint8: a quarter of the memory of float32

    def augment(self, x: Tensor, rng: torch.Generator) -> Tensor:
        strong = self.augmentation == "strong"
        x = random_crop(x, 4 * self.pad if strong else self.pad, rng)
        x = random_flip(x, rng) if self.flip else x
        return cutout(x, rng) if strong else x


def random_crop(x: Tensor, pad: int, rng: torch.Generator) -> Tensor:
    """Shift every image by up to `pad` pixels, edges filled by reflection; one gather for the whole batch."""
    n, _, h, w = x.shape
    shift = torch.randint(-pad, pad + 1, (2, n, 1), generator=rng, device=x.device)

    def reflect(size: int, by: Tensor) -> Tensor:  # (N, size) source index of every row or column
        period = max(1, 2 * (size - 1))  # to and fro, as often as it takes: a picture may be smaller than the padding
        at = (torch.arange(size, device=x.device) + by) % period
        return torch.where(at >= size, period - at, at)

    rows, cols = reflect(h, shift[0]), reflect(w, shift[1])
    batch = torch.arange(n, device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[batch, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def random_flip(x: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror half of the images, left to right."""
    flip = torch.rand(len(x), 1, 1, 1, generator=rng, device=x.device) < 0.5
    return torch.where(flip, x.flip(3), x)


def cutout(x: Tensor, rng: torch.Generator) -> Tensor:
    """Every image with one square, a quarter of the side wide, set to middle grey; it may lie partly outside.

    Pictures of less than four pixels either way stay as they are, since even one pixel is more than a quarter.
    """
    n, _, h, w = x.shape
    if max(h, w) < 4:
        return x

    def inside(size: int) -> Tensor:  # (N, size) bool along one axis
        centre = torch.randint(size, (n, 1), generator=rng, device=x.device)
        return (torch.arange(size, device=x.device) - centre).abs() <= size // 8

    return x.masked_fill((inside(h)[:, :, None] & inside(w)[:, None, :])[:, None], 128)


def read_published(task: ImageTask, folder: str, column: str) -> tuple[Samples, Samples]:
    """Training and test split of a task's dataset (see dataset_dict): images from `column`, classes from `label`."""
    splits = dataset_dict(task.dataset, folder, revision=task.revision)
    missing = {"train", "test"} - set(splits)
    if missing:
        raise BadInput(f"dataset {folder!r}: split {min(missing)!r} is missing, it has {', '.join(splits)}")
    parts, first_id = [], 0
    for name in ("train", "test"):
        where = f"dataset {folder!r}, split {name!r}"
        (labels,) = columns(splits[name], folder, "label")
        targets = as_targets(list(labels), len(task.classes), where)
        parts.append(make_samples(read_images(splits[name], column, folder, task.channels), targets, first_id))
        first_id += len(targets)
    return parts[0], parts[1]


def read_images(split: Dataset, column: str, folder: str, channels: int) -> Tensor:
    """uint8 (N, C, H, W) of an image column.

    Raises BadInput, which names the first row that is not an image or has another size.
    """
    from datasets import Image

    columns(split, folder, column)
    pixels: list[np.ndarray[Any, Any]] = []
    for row, cell in enumerate(split.cast_column(column, Image(decode=False))[column]):
        where = f"dataset {folder!r}: {column} of row {row}"
        if not cell or not (cell["bytes"] or cell["path"]):
            raise BadInput(f"{where} is empty")
        pixels.append(decode(cell["bytes"] or cell["path"], channels, where))
        if pixels[-1].shape != pixels[0].shape:
            raise BadInput(f"{where} is {size_of(pixels[-1].shape)}, the rows before it are {size_of(pixels[0].shape)}")
    return stack(pixels)
