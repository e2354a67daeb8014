"""Fine-pruning: switch off the features that clean data leaves dormant, then fine-tune."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from defenses.base import Case, Defense
from defenses.repair.fine_tuning import fine_tune
from tasks.base import Batch
from tasks.deployed import Model, Victim
from tasks.plugin import Above0, Positive, Share, options
from tasks.samples import Samples


@options
class FinePruning(Defense):
    """Repair: prunes the features that clean rows activate least, as far as accuracy allows, then fine-tunes.

    Liu, Dolan-Gavitt and Garg, 2018, arXiv 1805.12185, section 3; accuracy tolerance and epochs as in BackdoorBench.
    Deviations: prunes the features that enter the head (the last stage's channels after pooling), so that it works for
    every network (of a denoiser those of its middle block); ranks by mean absolute activation, which for ReLU is the
    paper's mean activation; one half of the clean rows ranks and the other half measures accuracy, or, of a generative
    model, one over its loss; fine-tuning as in `fine_tuning`.
    """

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "repair"
    paper: ClassVar[str] = "arXiv 1805.12185"

    clean_rows: Positive = 200  # drawn from the reserve
    tolerance: Share = 0.1  # share of the victim's accuracy that pruning may cost (BackdoorBench: acc_ratio)
    epochs: Positive | None = None  # of fine-tuning; None: BackdoorBench's 100, of generative tasks as in training
    batch_size: Positive = 64
    lr_scale: Above0 = 0.5  # peak learning rate of fine-tuning, times the task's own

    def defend(self, case: Case) -> Model:
        victim = case.fit(case.train)
        clean = case.clean(self.clean_rows)
        prune(victim, clean, self.tolerance)
        return fine_tune(case, clean, victim, self.epochs, self.batch_size, self.lr_scale)


def prune(victim: Victim, clean: Samples, tolerance: float) -> None:
    """Zero the victim's dormant features in its `keep` mask: half of the clean rows ranks, the other half decides."""
    half = (len(clean) + 1) // 2
    order = dormant_first(victim.features(clean.select(range(half))))
    measure = accuracy if victim.task.referee() is None else likelihood
    keep = choose_features(measure(victim, clean.select(range(half, len(clean)))), order, tolerance)
    victim.module.keep.mul_(keep.to(victim.device))


def dormant_first(features: Tensor) -> Tensor:
    """(D,) features (N, D) by rising mean absolute activation."""
    return features.abs().mean(0).argsort(stable=True)


def accuracy(victim: Victim, held: Samples) -> Callable[[Tensor], float]:
    """Of the classifier that keeps those features (D,), on clean rows."""
    features, targets = victim.features(held).to(victim.device), held.targets.to(victim.device)

    @torch.no_grad()
    def measure(keep: Tensor) -> float:
        return float((victim.module.head(features * keep.to(victim.device)).argmax(1) == targets).float().mean())

    return measure


def likelihood(victim: Victim, held: Samples) -> Callable[[Tensor], float]:
    """One over the mean loss of the generative model that keeps those features (D,), on clean rows, same noise."""
    x, y = victim.task.rows(held, victim.device)
    before = victim.module.keep.clone()

    @torch.no_grad()
    def measure(keep: Tensor) -> float:
        rng = torch.Generator(victim.device).manual_seed(0)
        victim.module.keep.copy_(before * keep.to(victim.device))
        loss = victim.task.loss(victim.module.eval(), Batch(x, y, torch.arange(len(x)), rng, progress=0))
        victim.module.keep.copy_(before)
        return 1 / float(loss.mean())

    return measure


def choose_features(measure: Callable[[Tensor], float], order: Tensor, tolerance: float) -> Tensor:
    """(D,) 0/1: prune in `order`, up to where the measure would fall below (1 - tolerance) of its start."""
    keep = torch.ones(len(order))
    floor = (1 - tolerance) * measure(keep)
    for feature in order[:-1].tolist():  # a network without any feature answers one class: never prune the last one
        keep[feature] = 0
        if measure(keep) < floor:
            keep[feature] = 1
            break
    return keep
