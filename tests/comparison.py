"""What the comparisons with other people's code are made on: a small network and pictures that are the same anywhere.

Its weights come from sines and from least squares instead of training, so that a fixture of numbers made elsewhere, or
years ago, was made on this very network.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from tasks.net import Net

SIDE, CLASSES, FEATURES = 8, 10, 48
NUMBERS = Path(__file__).parent / "campaigns" / "trojanzoo_numbers.json"  # written by the script beside it


def digits(n: int, digit: int | None = None) -> tuple[Tensor, Tensor]:
    """(n, 1, 8, 8) float32 pictures in 0..255 and their classes (n,); the first ones, of one digit if it is named."""
    data = load_digits()
    images = torch.from_numpy(data.images).float().mul(255 / 16).round()[:, None]
    targets = torch.from_numpy(data.target).long()
    chosen = torch.ones(len(targets), dtype=torch.bool) if digit is None else targets == digit
    return images[chosen][:n], targets[chosen][:n]


def waves(*shape: int) -> Tensor:
    """Numbers in [-1, 1] with no pattern to speak of: sines of squares."""
    n = torch.Size(shape).numel()
    return torch.arange(1, n + 1, dtype=torch.float64).square().mul(0.7).sin().view(shape).float()


class Fixed(Net):
    """Two layers of fixed features and a head by least squares on the digits; 92 % of them are told right."""

    def __init__(self) -> None:
        super().__init__()
        first, second = nn.Linear(SIDE * SIDE, 96), nn.Linear(96, FEATURES)
        self.stages = nn.ModuleList([nn.Sequential(nn.Flatten(), first, nn.Tanh()), nn.Sequential(second, nn.GELU())])
        self.attach_head(FEATURES, CLASSES)
        with torch.no_grad():
            first.weight.copy_(waves(96, SIDE * SIDE) / 4)
            first.bias.copy_(waves(96) / 4)
            second.weight.copy_(waves(FEATURES, 96) / 4)
            second.bias.copy_(waves(FEATURES) / 2)
            images, targets = digits(1797)
            features = self.eval().features(images).double()
            with_one = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], 1)
            wanted = 6 * (nn.functional.one_hot(targets, CLASSES).double() - 0.1)
            squares = with_one.T @ with_one + 0.1 * torch.eye(FEATURES + 1, dtype=torch.float64)
            solution = torch.linalg.solve(squares, with_one.T @ wanted).float()
            self.head.weight.copy_(solution[:-1].T)
            self.head.bias.copy_(solution[-1])

    def embed(self, x: Tensor) -> Tensor:
        return x.float() / 255

    def pool(self, h: Tensor) -> Tensor:
        return h


def read_numbers() -> dict[str, Any]:
    """What TrojanZoo found on this network."""
    numbers: dict[str, Any] = json.loads(NUMBERS.read_text(encoding="utf-8"))
    return numbers
