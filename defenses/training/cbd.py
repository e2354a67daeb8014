"""Causality-inspired defense: what a briefly trained network already knows counts little in training."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.base import Case, Defense
from tasks.base import Batch
from tasks.deployed import Model, Victim
from tasks.net import Net
from tasks.plugin import Positive, options


@options
class Cbd(Defense):
    """Trains a network for few epochs, to learn what is easy, and weighs rows that it knows down for the victim.

    Zhang, Liu, Wang, Lu and Hu, 2023 (CBD), arXiv 2303.06818: a backdoor is learnt within the
    first epochs, so a row on which the early network has a small loss L_b weighs L_b / (L_b + L) in the victim's loss
    L. No clean rows. Weights of a batch are divided by their mean, so that the rate of learning stays the task's.
    Deviations: without the term that makes the victim's features independent of the early network's, which the shipped
    configuration of the published code switches off as well; the early network goes through the task's whole
    schedule in its few epochs.
    Measured on fashion_mnist, 2,000 rows, 100 badnets, three seeds: ASR falls from 1.00 to .03, and accuracy from .88
    to .73, less than the .78 of a victim of the 200 clean rows alone, since the early network knows most easy clean
    rows too. With one early epoch, which knows neither, it changes nothing (seed 0: .998 and .865).
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio")
    why_not: ClassVar[str] = "a table's trees are not trained by steps that rows could weigh in"
    stage: ClassVar[str] = "training"
    paper: ClassVar[str] = "arXiv 2303.06818"

    early_epochs: Positive = 5  # of the early network; published value, where victims take 100

    def defend(self, case: Case) -> Model:
        early = case.fit(case.train, epochs=self.early_epochs)
        return case.fit(case.train, loss=partial(self.loss, early=early))

    def loss(self, module: Net, batch: Batch, early: Victim) -> Tensor:
        """(B,) cross-entropy, weighed by how little the early network knows of each row."""
        own = F.cross_entropy(module(batch.x).float(), batch.y, reduction="none")
        with torch.no_grad():
            known = F.cross_entropy(early.logits(batch.x), batch.y, reduction="none")
        return own * row_weights(known, own.detach())


def row_weights(early: Tensor, own: Tensor) -> Tensor:
    """(B,) early / (early + own) of two losses (B,), over their mean; ones where all weights are zero."""
    weights = early / (early + own).clamp(min=1e-12)
    mean = weights.mean()
    return torch.where(mean > 0, weights / mean.clamp(min=1e-12), 1.0)
