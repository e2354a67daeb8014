"""A trigger of each picture's own: two small networks say what it looks like and where it goes, see input_aware.

Pictures are floats in 0..255 (N, C, H, W). Networks are read in evaluation mode, and trained in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.base import Task

EPS = 1e-7  # of a distance that divides


def convolution(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU())


class PictureNet(nn.Module):
    """Pictures (N, C, H, W) to (N, channels, H, W) numbers in -1..1, over a quarter of the side and back."""

    def __init__(self, c_in: int, channels: int, width: int = 16) -> None:
        super().__init__()
        w = width
        self.down = nn.ModuleList([convolution(c_in, w), convolution(w, 2 * w)])
        self.middle = convolution(2 * w, 4 * w)
        self.up = nn.ModuleList([convolution(4 * w, 2 * w), convolution(2 * w, w)])
        self.last = nn.Conv2d(w, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h, sizes = x / 127.5 - 1, []
        for layer in self.down:
            sizes.append(h.shape[2:])
            h = F.max_pool2d(layer(h), 2, ceil_mode=True)
        h = self.middle(h)
        for layer, size in zip(self.up, reversed(sizes), strict=True):
            h = layer(F.interpolate(h, size=size))
        return torch.tanh(self.last(h))


@dataclass
class Generators:
    """The networks of a sample-specific trigger."""

    patterns: PictureNet
    masks: PictureNet

    def pattern(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in 0..255."""
        out: Tensor = (self.patterns(x) + 1) * 127.5
        return out

    def mask(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) in 0..1, nearly all of it 0 or 1."""
        out: Tensor = (torch.tanh(10 * self.masks(x)) + 1) / 2
        return out

    def apply(self, x: Tensor, others: Tensor) -> Tensor:
        """The pictures x with the triggers of the pictures `others`, of the same shape."""
        return x + (self.pattern(others) - x) * self.mask(others)

    @torch.no_grad()
    def stamp(self, x: Tensor, others: Tensor) -> Tensor:
        """uint8 pictures x with the triggers of `others`, on the CPU."""
        self.patterns.eval(), self.masks.eval()
        device = next(self.patterns.parameters()).device
        out = self.apply(x.to(device).float(), others.to(device).float())
        return out.round().clamp(0, 255).to(torch.uint8).cpu()


def sameness(x1: Tensor, x2: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
    """The mean over rows of the distance of two pictures over that of what is made of them: low where these differ."""

    def apart(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().flatten(1).mean(1).add(EPS).sqrt()

    return (apart(x1, x2) / (apart(y1, y2) + EPS)).mean()


@dataclass(frozen=True)
class Training:
    """How the generators are trained."""

    target: int
    share: float  # of a batch that is attacked; as much again is crossed
    density: float
    diversity: float  # weight
    sparsity: float  # weight
    mask_epochs: int
    epochs: int
    lr: float
    batch: int
    seed: int


def train_generators(task: Task, inputs: Tensor, targets: Tensor, how: Training, device: torch.device) -> Generators:
    """Generators for a task's training pictures uint8 (N, C, H, W): masks first, then patterns with a classifier."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(how.seed)
        c = inputs.shape[1]
        nets = Generators(PictureNet(c, c).to(device), PictureNet(c, 1).to(device))
        classifier = task.model().to(device)
    rng, augment_rng = torch.Generator().manual_seed(how.seed), torch.Generator(device).manual_seed(how.seed)
    x, y = inputs.to(device).float(), targets.to(device)

    def batches() -> list[tuple[Tensor, Tensor]]:
        """Positions of two orders of the rows, batch by batch."""
        first, second = (torch.randperm(len(x), generator=rng).to(device) for _ in range(2))
        return list(zip(first.split(how.batch), second.split(how.batch), strict=True))  # type: ignore[no-untyped-call]

    optimizer = torch.optim.Adam(nets.masks.parameters(), how.lr)
    for _ in range(how.mask_epochs):
        for i, j in batches():
            m1, m2 = nets.mask(x[i]), nets.mask(x[j])
            excess = (m1.flatten(1).mean(1) - how.density).relu().mean()
            descend(optimizer, how.diversity * sameness(x[i] / 255, x[j] / 255, m1, m2) + how.sparsity * excess)
    nets.masks.eval().requires_grad_(False)
    optimizer = torch.optim.Adam(nets.patterns.parameters(), how.lr)
    recipe = task.recipe()
    learner = torch.optim.AdamW(classifier.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    for _ in range(how.epochs):
        for i, j in batches():
            n = max(1, round(how.share * len(i)))
            attacked, crossed = nets.apply(x[i[:n]], x[i[:n]]), nets.apply(x[i[n : 2 * n]], x[j[n : 2 * n]])
            shown = torch.cat([attacked, crossed, x[i[2 * n :]]])
            labels = torch.cat([torch.full_like(y[i[:n]], how.target), y[i[n:]]])
            shown = task.augment(shown, augment_rng) if recipe.augment else shown
            alike = sameness(x[i[:n]], x[j[:n]], nets.pattern(x[i[:n]]), nets.pattern(x[j[:n]]))
            learner.zero_grad()
            descend(optimizer, F.cross_entropy(classifier(shown), labels) + how.diversity * alike)
            learner.step()
    return nets


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down this loss; gradients of other parameters are left for other optimisers."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
