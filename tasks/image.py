"""What all image classification tasks share: encoding, augmentation and the choice of victim."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from tasks.base import Positive, Samples, Task, options


@options
class ImageTask(Task):
    """Images uint8 (N, C, H, W). Standard augmentation: a random crop after 2 pixels of reflected padding, and a flip."""

    modality: ClassVar[str] = "image"
    channels: ClassVar[int] = 3
    flip: ClassVar[bool] = True  # off where a mirrored image is another class (digits)

    victim: str = "cnn"  # "cnn", or the name of a torchvision classifier such as "resnet18"
    width: Positive = 16  # channels of the CNN's first block

    def model(self) -> nn.Module:
        if self.victim == "cnn":
            from tasks.models.cnn import CNN

            return CNN(self.channels, len(self.classes), self.width)
        from tasks.models.torchvision_net import TorchvisionNet

        return TorchvisionNet(self.victim, self.channels, len(self.classes))

    def encode(self, samples: Samples, device: torch.device) -> Tensor:
        return samples.inputs.to(device)  # type: ignore[union-attr]  # uint8: a quarter of the memory of float32

    def augment(self, x: Tensor, rng: torch.Generator) -> Tensor:
        x = random_crop(x, 2, rng)
        return random_flip(x, rng) if self.flip else x


def random_crop(x: Tensor, pad: int, rng: torch.Generator) -> Tensor:
    """Shift every image by up to `pad` pixels, edges filled by reflection; one gather for the whole batch."""
    n, _, h, w = x.shape
    shift = torch.randint(-pad, pad + 1, (2, n, 1), generator=rng, device=x.device)

    def reflected(size: int, by: Tensor) -> Tensor:  # (N, size) source index of every row or column
        at = (torch.arange(size, device=x.device) + by).abs()
        return torch.where(at >= size, 2 * (size - 1) - at, at)

    rows, cols = reflected(h, shift[0]), reflected(w, shift[1])
    batch = torch.arange(n, device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[batch, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def random_flip(x: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror half of the images, left to right."""
    flip = torch.rand(len(x), 1, 1, 1, generator=rng, device=x.device) < 0.5
    return torch.where(flip, x.flip(3), x)
