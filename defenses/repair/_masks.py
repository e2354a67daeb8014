"""Masks over the channels of batch norms: batches to learn them on, and how far to prune by them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from defenses._batch_norm import find_batch_norms
from tasks.deployed import Victim
from tasks.samples import Samples

THRESHOLDS = [i / 20 for i in range(19)]  # 0 to 0.9, below which a mask prunes
Scales = dict[str, Tensor]  # of every batch norm, by name: one number per channel


def draw_batches(n: int, size: int, steps: int, rng: torch.Generator) -> Iterator[Tensor]:
    """So many batches of positions of n rows, each row once per pass."""
    done = 0
    while done < steps:
        for rows in torch.split(torch.randperm(n, generator=rng), size)[: steps - done]:
            yield rows
            done += 1


@torch.no_grad()
def prune(victim: Victim, mask: Scales, held: Samples, tolerance: float) -> None:
    """Zero the batch-norm weights whose mask is below the largest threshold that accuracy on held-out rows allows."""
    norms = find_batch_norms(victim)
    before = {name: norm.weight.clone() for name, norm in norms}

    def accuracy(threshold: float) -> float:
        for name, norm in norms:
            norm.weight.copy_(before[name] * (mask[name] >= threshold))
        return float((victim.predict(held).answers == held.targets).float().mean())

    floor = (1 - tolerance) * accuracy(0)
    accuracy(max(threshold for threshold in THRESHOLDS if accuracy(threshold) >= floor))
