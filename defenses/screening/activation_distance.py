"""Activation distance: an input whose hidden activations are far from those of every clean class is refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from sklearn.covariance import LedoitWolf
from torch import Tensor

from defenses.base import Case, Defense
from defenses.screening._halves import split_in_half
from tasks.deployed import Guarded, Model, Victim, autocast
from tasks.net import Net
from tasks.plugin import Share, options
from tasks.samples import Samples


@options
class ActivationDistance(Defense):
    """Screening: refuses inputs whose activations lie far, by Mahalanobis, from the clean rows of every class.

    Lee, Lee, Lee and Shin, 2018, arXiv 1807.03888 (class means, one covariance); Chen, Yang, Zhang, Bi and Sun, 2022
    (DAN), arXiv 2210.07907: of every layer the smallest distance over classes, standardised on clean rows, then the
    mean over layers. Layers are the network's stages, averaged over positions, and what its head reads.
    Deviations: covariances are shrunk (Ledoit and Wolf), since a half of the clean rows has to do; the other half
    standardises and sets the threshold. A language model has one class: documents.
    Seen on fashion_mnist (2,000 rows, badnets 100) and fsdd (600 clips, tone_clip 100), seeds 0 to 2: AUROC 1.00, ASR
    1.00 to 0.00 with 6 to 9 % and 2 to 7 % of the clean inputs refused; on ag_news (4,000 rows, addsent 100): AUROC
    0.89, 0.86 and 0.81, ASR 0.83 to 0.49.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio", "tabular", "language")
    why_not: ClassVar[str] = "a generator of media starts from noise, of which no activation is unusual"
    stage: ClassVar[str] = "screening"
    paper: ClassVar[str] = "arXiv 2210.07907"

    clean_rows: Annotated[int, Field(ge=4)] = 200  # drawn from the reserve
    false_rejection: Share = 0.05  # of clean inputs, sets the threshold

    def defend(self, case: Case) -> Model:
        victim, clean = case.fit(case.train), case.clean(self.clean_rows)
        known, held_out = split_in_half(clean, case.rng)
        classes = known.targets if case.task.referee() is None else torch.zeros_like(known.targets)
        layers = [_Layer(states, classes) for states in read_layers(victim, known)]
        usual = distances(layers, read_layers(victim, held_out))
        screen = partial(suspicion, victim, layers, usual.mean(0), usual.std(0).clamp(min=1e-12))
        threshold = screen(held_out).quantile(1 - self.false_rejection)
        return Guarded(victim, screen=screen, threshold=float(threshold))


class _Layer:
    """The clean activations (N, D) of one layer: a mean for every class that has rows, one covariance."""

    def __init__(self, states: Tensor, classes: Tensor) -> None:
        found, place = torch.unique(classes, return_inverse=True)
        self.means = torch.stack([states[place == i].mean(0) for i in range(len(found))])
        around = LedoitWolf(assume_centered=True).fit((states - self.means[place]).numpy())
        self.precision = torch.from_numpy(around.precision_)

    def distance(self, states: Tensor) -> Tensor:
        """(N,) squared Mahalanobis distance to the nearest class mean, per dimension."""
        apart = states[:, None] - self.means
        squared: Tensor = ((apart @ self.precision) * apart).sum(2).amin(1)
        return squared / states.shape[1]


def distances(layers: Sequence[_Layer], states: Sequence[Tensor]) -> Tensor:
    """(N, layers) of activations (N, D) in every layer."""
    return torch.stack([layer.distance(h) for layer, h in zip(layers, states, strict=True)], 1)


def suspicion(victim: Victim, layers: Sequence[_Layer], usual: Tensor, spread: Tensor, samples: Samples) -> Tensor:
    """(N,) mean over layers of the standardised distances."""
    return ((distances(layers, read_layers(victim, samples)) - usual) / spread).mean(1).float()


@torch.no_grad()
def read_layers(victim: Victim, samples: Samples) -> list[Tensor]:
    """(N, D) float64 on the CPU of every stage, averaged over positions, and of what the head reads."""
    net, parts = victim.module.eval(), []
    for x in victim.batches(samples):
        seen: list[Tensor] = []
        hooks = [s.register_forward_hook(lambda _, __, out: seen.append(average(net, out, x))) for s in net.stages]  # noqa: B023
        try:
            with autocast(victim.device):
                seen.append(net.features(x))
        finally:
            for hook in hooks:
                hook.remove()
        parts.append([h.double().cpu() for h in seen])
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def average(net: Net, out: Tensor | tuple[Tensor, ...], x: Tensor) -> Tensor:
    """(N, C) of a stage's output (N, C, H, W) or (N, L, C), without padding; x is the encoded batch."""
    h = (out if isinstance(out, Tensor) else out[0]).float()
    h = h[..., :-1] if net.masked else h
    if h.ndim == 3:
        there = (x[:, : h.shape[1]] > 0).float()[..., None]
        return (h * there).sum(1) / there.sum(1).clamp(min=1)
    return h.mean((2, 3)) if h.ndim == 4 else h
