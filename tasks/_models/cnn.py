"""A small fast CNN: images in uint8 on the device, normalised inside the network."""

from __future__ import annotations

from torch import Tensor, nn

from tasks.net import Net


def block(c_in: int, c_out: int) -> nn.Sequential:
    """Two 3x3 convolutions, batch norm and GELU, then 2x2 max pooling."""
    layers: list[nn.Module] = []
    for c in (c_in, c_out):
        layers += [nn.Conv2d(c, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.GELU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True))


class CNN(Net):
    """Three blocks of width w, 2w, 4w and global max pooling; D = 4w."""

    def __init__(self, channels: int, classes: int, width: int = 16) -> None:
        super().__init__()
        w = width
        self.stages = nn.ModuleList([block(channels, w), block(w, 2 * w), block(2 * w, 4 * w)])
        self.attach_head(4 * w, classes)

    def embed(self, x: Tensor) -> Tensor:
        """uint8 (N, C, H, W) to roughly zero mean, unit spread; a float x in 0..255 passes through the same way."""
        return (x.float() - 127.5) / 64

    def pool(self, h: Tensor) -> Tensor:
        return h.amax((2, 3))
