"""MM-BD: the class whose logit can be driven far above all others, whatever the picture, is the attacker's."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy import stats
from torch import Tensor

from defenses.base import Case, Defense
from tasks.deployed import Model, autocast, layout
from tasks.net import Net
from tasks.plugin import Above0, NotApplicable, Positive, Share, options


@options
class MmBd(Defense):
    """Inspection: of noise, climbs to the largest margin of each class; asks how unlikely the largest of all is.

    Wang, Xiang, Miller and Kesidis, 2024, IEEE S&P, arXiv 2205.06900, section 4: a class's statistic is the largest
    lead of its logit over the next one that gradient ascent finds from random pictures; a gamma distribution is
    fitted to those of the other classes, and the p-value is the chance that the largest of K draws is as large. No
    clean rows.
    The suspicion of a model is -log10 p, and the class believed to be the target that of the largest statistic.
    It inspects only: what it deploys is the victim as it is (the paper's mitigation bounds activations by clean rows).
    Deviations: momentum acts, as in the paper; in the published code the optimiser is made anew in every step. Sounds
    are searched as log-mel spectrograms, between the least and the largest value of the training set's.
    Unproven: on fashion_mnist, 2,000 rows, -log10 p is 1.4 and 0.9 with 100 badnets and 1.4 and 2.2 without (seeds 0
    and 1; 1.3 is the bound), for the margins of ten unlike classes differ by themselves. Of seed 0, 100 steps instead
    of 300 gave 2.2 and 0.6, and 40 steps of ten times the rate 1.1 and 1.1.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "audio")
    why_not: ClassVar[str] = "it climbs from noise on a grid of numbers, and a text has no such grid"
    stage: ClassVar[str] = "inspection"
    paper: ClassVar[str] = "arXiv 2205.06900"

    starts: Positive = 30  # random pictures per class
    steps: Positive = 300  # of gradient ascent, at most
    lr: Above0 = 0.01  # of SGD, on values in [0, 1]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.2
    close: Above0 = 1e-5  # relative change of the sum of margins at which the ascent ends
    significance: Share = 0.05  # p-value at which the class is called the target

    def defend(self, case: Case) -> Model:
        classes = len(case.task.classes)
        if classes < 4:
            raise NotApplicable(
                f"{case.task.name} has {classes} classes: a distribution of the others needs at least 3"
            )
        victim = case.fit(case.train)
        x = case.task.encode(case.train.select(range(min(len(case.train), 1024))), case.device).float()
        low, high = (0.0, 255.0) if case.task.modality == "image" else (float(x.min()), float(x.max()))
        start = torch.rand(classes, self.starts, *x.shape[1:], generator=case.rng).to(case.device)
        margins = self.climb(victim.module, start, low, high)
        case.save("margins", margins)
        suspicion = surprise(margins)
        believed = suspicion >= -math.log10(max(self.significance, 1e-300))
        case.report(model=suspicion, target=int(margins.argmax()) if believed else None)
        return victim

    def climb(self, module: Net, start: Tensor, low: float, high: float) -> Tensor:
        """(K,) largest margin found for every class from start (K, S, ...) in [0, 1]; the network reads low to high."""
        module.eval().requires_grad_(False)
        classes, starts = start.shape[:2]
        free = start.flatten(0, 1).clone().requires_grad_()
        own = torch.arange(classes, device=start.device).repeat_interleave(starts)
        optimiser = torch.optim.SGD([free], self.lr, momentum=self.momentum)
        before = math.nan  # nothing is close to it
        best = torch.full((classes,), -math.inf, device=start.device)
        for _ in range(self.steps):
            with autocast(start.device):
                logits = module(layout(low + (high - low) * free.clamp(0, 1))).float()
            margin = logits.gather(1, own[:, None]).squeeze(1) - logits.scatter(1, own[:, None], -math.inf).amax(1)
            best = best.maximum(margin.detach().view(classes, starts).amax(1))
            total = float(margin.detach().sum())
            if abs(total - before) <= self.close * abs(before):
                break
            before = total
            optimiser.zero_grad()
            (-margin.sum()).backward()
            optimiser.step()
        return best.cpu()


def surprise(margins: Tensor) -> float:
    """-log10 of the p-value of the largest margin (K,) under a gamma distribution of the others; 0 if all are alike."""
    values = np.sort(margins.double().numpy())
    others, largest = np.maximum(values[:-1], 1e-6), max(float(values[-1]), 1e-6)
    if np.ptp(others) < 1e-9:
        return 0.0 if largest <= others[-1] + 1e-9 else 300.0
    shape, _, scale = stats.gamma.fit(others, floc=0)
    above = stats.gamma.logsf(largest, shape, scale=scale)  # log of the chance that one draw is as large
    p = -math.expm1(len(values) * math.log1p(-math.exp(above))) if above < 0 else 1.0
    # Far in the tail p is K times the chance of one draw, whose logarithm is still a number where p is none.
    log = math.log10(p) if p > 1e-12 else (above + math.log(len(values))) / math.log(10)
    return max(0.0, min(-log, 300.0))
