"""Neural Cleanse: reverse-engineer a trigger for every class; one much smaller than the others is a backdoor."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.base import Case, Defense
from tasks.base import Batch
from tasks.deployed import Model, autocast, layout
from tasks.net import Net
from tasks.plugin import Above0, NotApplicable, Positive, Share, options


@options
class NeuralCleanse(Defense):
    """Inspection: finds the smallest trigger for every class; if one is an outlier, the victim unlearns it.

    Wang, Yao, Shan, Li, Viswanath, Zheng and Zhao, 2019, IEEE S&P, "Neural Cleanse", sections IV and VI-B.
    Deviations: of each class the smallest trigger of three searches counts, because one search from another random
    start changes the anomaly index of the same victim from 1.5 to 3.3; all classes are optimised side by side (the same
    steps, in one batch); 200 clean rows and 40 passes over them; the cost starts at its first value instead of 0;
    unlearning takes 20 passes over the clean rows instead of one over 10 % of the training set; sounds are searched as
    log-mel spectrograms. A trigger's success is counted over the steps of a pass, as in the published code: the mask
    that the pass ends with may turn 1 or 2 % fewer rows. The index stays unstable over ten unlike classes: read it as a
    score to compare models by.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "audio")
    why_not: ClassVar[str] = "it searches a mask and a pattern on a grid of numbers, and a text has no such grid"
    stage: ClassVar[str] = "inspection"
    paper: ClassVar[str] = "doi 10.1109/SP.2019.00031"

    clean_rows: Positive = 200  # drawn from the reserve
    starts: Positive = 3  # searches from random starts
    epochs: Positive = 40  # passes over the clean rows in each (BackdoorBench: 80)
    batch_size: Positive = 64  # clean rows per step; each is stamped with the trigger of every class
    lr: Above0 = 0.1  # of Adam
    init_cost: Above0 = 1e-3  # first weight of the mask's L1 norm
    cost_multiplier: Above0 = 2.0  # raises that weight; its power 1.5 lowers it
    patience: Positive = 5  # epochs of success, or of failure, before the weight changes
    success: Share = 0.99  # of the rows turned to the class
    outlier: Above0 = 2.0  # anomaly index above which the model is called backdoored (section IV-B)
    stamped: Share = 0.2  # of the rows carry the found trigger and their true label in unlearning (section VI-B)
    unlearn_epochs: Positive = 20
    unlearn_batch_size: Positive = 64

    def defend(self, case: Case) -> Model:
        classes = len(case.task.classes)
        if classes < 3:
            raise NotApplicable(f"{case.task.name} has {classes} classes: an outlier needs at least 3")
        victim, clean = case.fit(case.train), case.clean(self.clean_rows)
        x = case.task.encode(clean, case.device).float()
        low, high = (0.0, 255.0) if case.task.modality == "image" else (float(x.min()), float(x.max()))
        masks, patterns = self.search(victim.module, (x - low) / (high - low), low, high, classes, case.rng)
        index, target = anomaly(masks.sum((1, 2, 3)))
        mask, pattern = masks[target], patterns[target]
        case.report(model=index, target=target)
        case.save("mask", mask)
        case.save("trigger", mask * pattern)
        if index <= self.outlier:
            return victim
        loss = partial(self.loss, mask=mask, pattern=low + (high - low) * pattern)
        return case.fit(clean, init=victim, loss=loss, epochs=self.unlearn_epochs, batch_size=self.unlearn_batch_size)

    def search(
        self, module: Net, x: Tensor, low: float, high: float, classes: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What `invert` returns, of each class the smallest of all starts."""
        found = [self.invert(module, x, low, high, classes, rng) for _ in range(self.starts)]
        masks, patterns = (torch.stack(part) for part in zip(*found, strict=True))  # (starts, K, ...)
        smallest, of_class = masks.sum((2, 3, 4)).argmin(0), torch.arange(classes)
        return masks[smallest, of_class], patterns[smallest, of_class]

    def invert(
        self, module: Net, x: Tensor, low: float, high: float, classes: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """(K, 1, H, W) masks and (K, C, H, W) patterns for x (N, C, H, W), in [0, 1]; the network reads low to high."""
        module.eval().requires_grad_(False)
        _, c, h, w = x.shape
        free = torch.rand(classes, 1 + c, h, w, generator=rng).to(x.device).sub_(0.5).requires_grad_()
        optimiser = torch.optim.Adam([free], self.lr, betas=(0.5, 0.9))
        best = squash(free.detach())
        smallest, cost = x.new_full((classes,), float("inf")), x.new_full((classes,), self.init_cost)
        wins, losses = x.new_zeros(classes), x.new_zeros(classes)
        for _ in range(self.epochs):
            hits = x.new_zeros(classes)
            for rows in torch.split(torch.randperm(len(x), generator=rng).to(x.device), self.batch_size):
                mask, pattern = torch.split(squash(free), [1, c], 1)
                stamped = x[rows] + mask[:, None] * (pattern[:, None] - x[rows])  # (K, B, C, H, W)
                with autocast(x.device):
                    logits = module(layout(low + (high - low) * stamped.flatten(0, 1))).float()
                goals = torch.arange(classes, device=x.device).repeat_interleave(len(rows))
                ce = F.cross_entropy(logits, goals, reduction="none").view(classes, -1).mean(1)
                optimiser.zero_grad()
                (ce + cost * mask.sum((1, 2, 3))).sum().backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                hits += (logits.argmax(1) == goals).view(classes, -1).sum(1)
            current, succeeds = squash(free.detach()), hits >= self.success * len(x)
            norm = current[:, 0].sum((1, 2))
            # While nothing has worked yet, the latest is the best.
            better = (succeeds & (norm < smallest)) | (smallest.isinf() & ~succeeds)
            best = torch.where(better[:, None, None, None], current, best)
            smallest = torch.where(succeeds, norm.minimum(smallest), smallest)
            wins, losses = torch.where(succeeds, wins + 1, 0), torch.where(succeeds, 0, losses + 1)
            up, down = wins >= self.patience, losses >= self.patience
            cost = torch.where(up, cost * self.cost_multiplier, cost)
            cost = torch.where(down, cost / self.cost_multiplier**1.5, cost)
            wins, losses = wins.masked_fill(up, 0), losses.masked_fill(down, 0)
        return best[:, :1], best[:, 1:]

    def loss(self, module: Net, batch: Batch, mask: Tensor, pattern: Tensor) -> Tensor:
        """(B,) cross-entropy with the true labels; a share of the rows is stamped."""
        x = batch.x.float()
        chosen = torch.rand(len(x), 1, 1, 1, generator=batch.rng, device=x.device) < self.stamped
        return F.cross_entropy(module(x + chosen * mask * (pattern - x)).float(), batch.y, reduction="none")


def squash(free: Tensor) -> Tensor:
    """Unbounded to [0, 1]."""
    return free.tanh() / 2 + 0.5


def anomaly(norms: Tensor) -> tuple[float, int]:
    """How many normalised median deviations the smallest of norms (K,) lies below the median, and whose it is."""
    middle = norms.quantile(0.5)
    spread = 1.4826 * (norms - middle).abs().quantile(0.5)  # 1.4826 makes it a standard deviation for normal data
    return float((middle - norms.min()) / spread.clamp(min=1e-12)), int(norms.argmin())
