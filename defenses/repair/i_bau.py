"""Implicit backdoor adversarial unlearning: unlearn the one change of all inputs that hurts the victim most."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.base import Case, Defense
from tasks.deployed import Model
from tasks.net import Net
from tasks.plugin import Above0, AtLeast0, Positive, Share, options

STEP = 0.1  # of the fixed-point iteration


@options
class IBau(Defense):
    """Repair: finds one change of all clean inputs that raises the loss, and unlearns it by the implicit gradient.

    Zeng, Chen, Park, Mao, Jin and Jia, 2022 (I-BAU), arXiv 2110.03735, algorithm 1. Inner: maximise the mean loss -
    0.001 * ||d||^2 over one change d, from zero, one pass over the clean rows. Outer: lower the loss of a batch of
    which few rows carry d; its gradient also goes through d, by K = 5 steps of a fixed-point iteration.
    Deviations: 200 clean rows instead of 5 % of 50,000, so batches of 25 instead of 100, of which one row carries d
    instead of 1 %; batch norms use their running statistics, since small batches would move them. Batches of 100 make
    10 outer steps instead of 125; the size was chosen with what they leave in view (ASR 0.09, 0.03 and 0.88). Seen on
    fashion_mnist (2,000 rows, badnets 100, seeds 0 to 2): ASR 1.00 to 0.01, 0.02 and 0.02, accuracy 0.875 to 0.829. On
    fsdd (600 clips, tone_clip 100) 1.00 to 0.01, but accuracy 0.964 to 0.852, less than that of `reserve_only`
    (0.959).
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "audio")
    why_not: ClassVar[str] = "one change fits all inputs only where they are grids of numbers of one shape"
    stage: ClassVar[str] = "repair"
    paper: ClassVar[str] = "arXiv 2110.03735"

    clean_rows: Positive = 200  # drawn from the reserve
    unlearn_epochs: Positive = 5  # rounds of inner and outer problem, each one pass over the clean rows
    batch_size: Positive = 25
    portion: Share = 0.01  # of an outer batch that carries the change, at least one row
    lr: Above0 = 1e-3  # of Adam, outer
    inner_lr: Above0 = 10.0  # of gradient ascent on the change, whose unit is the range of the inputs
    penalty: AtLeast0 = 1e-3  # weight of the squared norm of the change
    fixed_points: Positive = 5  # K, of the iteration

    def defend(self, case: Case) -> Model:
        victim, clean = case.fit(case.train), case.clean(self.clean_rows)
        net = victim.module.eval().requires_grad_(True)
        x, y = case.task.rows(clean, case.device)
        e = net.embed(x).detach()
        span = float(e.amax() - e.amin())
        optimiser = torch.optim.Adam(net.parameters(), self.lr)
        for _ in range(self.unlearn_epochs):
            change = torch.zeros_like(e[:1])
            for rows in torch.split(torch.randperm(len(e), generator=case.rng), self.batch_size):
                harm = self.harm(net, e[rows], y[rows], change.requires_grad_(), span)
                (slope,) = torch.autograd.grad(harm, [change])
                change = change.detach() + self.inner_lr * slope
            for rows in torch.split(torch.randperm(len(e), generator=case.rng), self.batch_size):
                carried = torch.arange(len(rows), device=e.device) < max(1, int(self.portion * len(rows)))
                slopes = self.implicit_gradient(net, e[rows], y[rows], change.requires_grad_(), span, carried)
                for weight, slope in zip(net.parameters(), slopes, strict=True):
                    weight.grad = slope
                optimiser.step()
        return victim

    def harm(self, net: Net, e: Tensor, y: Tensor, change: Tensor, span: float) -> Tensor:
        """() what the inner problem maximises, of an embedded batch (B, ...) and a change (1, ...)."""
        return cross_entropy(net, e + span * change, y) - self.penalty * change.square().sum()

    def implicit_gradient(
        self, net: Net, e: Tensor, y: Tensor, change: Tensor, span: float, carried: Tensor
    ) -> list[Tensor]:
        """Of every weight: the gradient of the loss of a batch whose rows `carried` (B,) have the change."""
        weights = list(net.parameters())
        where = carried.view(-1, *[1] * (e.ndim - 1))
        outer = cross_entropy(net, e + where * span * change, y)
        of_change, *direct = torch.autograd.grad(outer, [change, *weights])
        (slope,) = torch.autograd.grad(self.harm(net, e, y, change, span), [change], create_graph=True)
        moved = change + STEP * slope  # a fixed point where the inner problem is solved
        through = torch.zeros_like(of_change)
        for _ in range(self.fixed_points):
            (again,) = torch.autograd.grad(moved, [change], through, retain_graph=True)
            through = again + of_change
        indirect = torch.autograd.grad(moved, weights, through, allow_unused=True)
        return [d if i is None else d + i for d, i in zip(direct, indirect, strict=True)]


def cross_entropy(net: Net, e: Tensor, y: Tensor) -> Tensor:
    """() mean, of an embedded batch."""
    return F.cross_entropy(net.head(net.body(e)).float(), y)
