"""Frequency artefacts: triggers leave traces in an image's spectrum that a small CNN learns from synthetic ones."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from scipy.fft import dctn
from torch import Tensor, nn

from defenses.base import Case, Defense, refit_without
from tasks.deployed import CHUNK, Model, autocast, layout
from tasks.plugin import Above0, NotApplicable, Positive, Share, options

KINDS = 5  # white block, noise block, Gaussian noise, shadow, blend


@options
class Frequency(Defense):
    """Drops the images whose discrete cosine transform looks manipulated to a CNN trained on synthetic artefacts.

    Zeng, Park, Mao and Jia, 2021, arXiv 2104.03413, section 4: clean images against copies with a white or noise
    block of 2 to 7 pixels, Gaussian noise, a shadow, or another image blended in; six convolutions.
    Deviations: hundreds of clean images, not 50,000, hence: coefficients are standardised by the clean images, AdamW
    with a one-cycle rate takes the place of Adadelta (lr 0.05), whose steps are too small for so few; the artefacts are
    drawn anew every epoch, not every tenth; blocks have at most half the side of the image; the shadow's edge is one
    straight line.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "it looks for artefacts in the spectrum of an image"
    stage: ClassVar[str] = "filtering"
    paper: ClassVar[str] = "arXiv 2104.03413"

    clean_rows: Positive = 200  # images from the reserve
    epochs: Positive = 16  # over the clean images; the paper's 50 are over 50,000
    lr: Above0 = 3e-3  # peak
    threshold: Share = 0.5  # probability of an artefact above which a row is dropped

    def defend(self, case: Case) -> Model:
        clean, suspects = case.clean(self.clean_rows).inputs, case.train.inputs
        assert isinstance(clean, Tensor)  # `modalities` says so
        assert isinstance(suspects, Tensor)
        if min(clean.shape[2:]) < 8:
            raise NotApplicable(f"frequency: images of {tuple(clean.shape[-2:])} pixels are too small, it takes 8 x 8")
        suspicion = artefact_probability(clean, suspects, self.epochs, self.lr, case.rng, case.device)
        return refit_without(case, suspicion > self.threshold, suspicion)


def artefact_probability(
    clean: Tensor, suspects: Tensor, epochs: int, lr: float, rng: torch.Generator, device: torch.device
) -> Tensor:
    """(N,) probability that each suspect was manipulated, by a detector trained on clean images.

    clean, suspects: uint8 (N, C, H, W).
    """
    reference = spectrum(clean)
    mean, std = reference.mean(0), reference.std(0).clamp(min=1)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
        net = detector(*clean.shape[1:]).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        batches = -(-2 * len(clean) // 64)
        optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(epochs * batches, 10))
        y = torch.arange(2 * len(clean), device=device) // len(clean)
        for _ in range(epochs):
            x = torch.cat([reference, spectrum(add_artefacts(clean, rng))])
            x = layout(((x - mean) / std).to(device))
            for rows in torch.randperm(len(y), generator=rng).to(device).tensor_split(batches):
                with autocast(device):
                    loss = F.cross_entropy(net(x[rows]).float(), y[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    net.eval()
    probabilities = []
    for start in range(0, len(suspects), CHUNK):
        part = suspects[start : start + CHUNK]
        with torch.no_grad(), autocast(device):
            probabilities.append(net(layout(((spectrum(part) - mean) / std).to(device))).float().softmax(1)[:, 1].cpu())
    return torch.cat(probabilities)


def spectrum(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) to the orthonormal 2D cosine transform of each channel, float32."""
    return torch.from_numpy(dctn(images.float().numpy(), axes=(2, 3), norm="ortho"))


def detector(c: int, h: int, w: int) -> nn.Sequential:
    """Three pairs of 3x3 convolutions, ELU and batch norm, each pair pooled by 2, with dropout; two classes."""
    layers: list[nn.Module] = []
    for wide, drop in ((32, 0.2), (64, 0.3), (128, 0.4)):
        for c_in in (c, wide):
            layers += [nn.Conv2d(c_in, wide, 3, padding=1), nn.ELU(), nn.BatchNorm2d(wide)]
        layers += [nn.MaxPool2d(2), nn.Dropout(drop)]
        c, h, w = wide, h // 2, w // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(c * h * w, 2))


def add_artefacts(images: Tensor, rng: torch.Generator) -> Tensor:
    """uint8 (N, C, H, W), every image with one artefact of a random kind."""
    kinds = torch.randint(KINDS, (len(images),), generator=rng)
    x = images.float()
    parts = [with_block(x, False, rng), with_block(x, True, rng), with_noise(x, rng), with_shadow(x, rng)]
    parts.append(x + 0.3 * x[torch.randperm(len(x), generator=rng)])
    return torch.stack(parts)[kinds, torch.arange(len(x))].clamp(0, 255).round().to(torch.uint8)


def with_block(x: Tensor, noise: bool, rng: torch.Generator) -> Tensor:
    """A white or noise rectangle of 2 to 7 pixels, up to 5 from a random corner."""
    n, _, h, w = x.shape

    def inside(size: int) -> Tensor:  # (N, size) bool along one axis
        side = torch.randint(2, min(7, size // 2) + 1, (n,), generator=rng)
        margin = torch.minimum(torch.randint(6, (n,), generator=rng), size - side)
        first = torch.where(torch.rand(n, generator=rng) < 0.5, margin, size - side - margin)
        position = torch.arange(size)
        return (position >= first[:, None]) & (position < (first + side)[:, None])

    block = (inside(h)[:, :, None] & inside(w)[:, None, :])[:, None]
    fill = 255 * torch.rand(x.shape, generator=rng) if noise else torch.full_like(x, 255)
    return torch.where(block, fill, x)


def with_noise(x: Tensor, rng: torch.Generator) -> Tensor:
    """Gaussian noise of mean 25 and variance 10 to 70."""
    variance = 10 + 60 * torch.rand(len(x), 1, 1, 1, generator=rng)
    return x + 25 + variance.sqrt() * torch.randn(x.shape, generator=rng)


def with_shadow(x: Tensor, rng: torch.Generator) -> Tensor:
    """Half as bright on one side of a random line that crosses the lower half."""
    n, _, h, w = x.shape
    angle = 2 * torch.pi * torch.rand(n, 1, 1, generator=rng)
    row = h * (0.5 + 0.5 * torch.rand(n, 1, 1, generator=rng))
    col = w * torch.rand(n, 1, 1, generator=rng)
    side = (torch.arange(h)[:, None] - row) * angle.sin() + (torch.arange(w) - col) * angle.cos()
    return torch.where((side > 0)[:, None], 0.5 * x, x)
