"""torchvision classifiers, cut and adapted to small images; always untrained."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from tasks.net import Net
from tasks.plugin import BadInput

FAMILIES = ("resnet", "resnext", "wide_resnet", "vgg", "mobilenet", "densenet", "efficientnet")


def names() -> list[str]:
    """The torchvision classifiers that can be cut into stages."""
    from torchvision import models

    known: list[str] = models.list_models(module=models)
    return [n for n in known if n.startswith(FAMILIES)]


class TorchvisionNet(Net):
    """A torchvision classifier by name. The stem keeps the resolution: 3x3, stride 1, no pooling (CIFAR-style)."""

    def __init__(self, name: str, channels: int, classes: int) -> None:
        super().__init__()
        if name not in names():
            near = get_close_matches(name, names(), n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise BadInput(f"victim={name!r}: {hint}valid: cnn, {', '.join(names())}")
        from torchvision import models

        net = models.get_model(name, weights=None, num_classes=classes)
        stages = resnet_stages(net, channels) if hasattr(net, "layer4") else feature_stages(net, channels)
        self.stages = nn.ModuleList(stages)
        for module in self.stages.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # type: ignore[assignment]  # in-place work would overwrite a stage's output
        self.attach_head(self.width(channels), classes)

    def embed(self, x: Tensor) -> Tensor:
        """uint8 (N, C, H, W) to roughly zero mean, unit spread; a float x in 0..255 passes through the same way."""
        return (x.float() - 127.5) / 64

    def pool(self, h: Tensor) -> Tensor:
        return h.mean((2, 3))

    @torch.no_grad()
    def width(self, channels: int) -> int:
        """D, found by a forward pass, since every family calls it otherwise."""
        self.eval()
        h = torch.zeros(1, channels, 32, 32)
        for stage in self.stages:
            h = stage(h)
        self.train()
        return h.shape[1]


def stem(channels: int, like: nn.Conv2d) -> nn.Conv2d:
    """A 3x3, stride-1 convolution in the place of an ImageNet stem."""
    return nn.Conv2d(channels, like.out_channels, 3, padding=1, bias=like.bias is not None)


def resnet_stages(net: Any, channels: int) -> list[nn.Module]:
    """Stem and first layer, then the three that halve the resolution."""
    first = nn.Sequential(stem(channels, net.conv1), net.bn1, net.relu, net.layer1)
    return [first, net.layer2, net.layer3, net.layer4]


def feature_stages(net: Any, channels: int) -> list[nn.Module]:
    """`net.features`, cut where the resolution falls; what follows it (pooling, dropout, head) is left out."""
    layers = dict(net.features.named_children())
    if "pool0" in layers:  # DenseNet: no stem pooling, and the activation that its forward() applies after norm5
        layers = {**layers, "pool0": nn.Identity(), "relu5": nn.ReLU()}
    first = next(iter(layers))
    if isinstance(layers[first], nn.Conv2d):
        layers[first] = stem(channels, layers[first])
    else:  # Conv2dNormActivation: convolution, norm, activation
        layers[first][0] = stem(channels, layers[first][0])
    for layer in layers.values():
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = True  # five halvings of 28 pixels would otherwise leave none
    stages: list[list[nn.Module]] = [[]]
    h, side = torch.zeros(1, channels, 32, 32), 32
    with torch.no_grad():
        for layer in layers.values():
            h = layer.eval()(h)
            layer.train()
            if h.shape[2] < side:
                stages.append([])
                side = h.shape[2]
            stages[-1].append(layer)
    return [nn.Sequential(*stage) for stage in stages]
