"""Sharpness-aware fine-tuning: tune where the loss is flat, so that the weights behind a backdoor shrink."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from defenses.base import Case, Defense
from tasks.base import Batch
from tasks.deployed import Model
from tasks.net import Net
from tasks.plugin import Above0, Positive, Share, options


@options
class FtSam(Defense):
    """Repair: fine-tunes on clean rows by the gradient at the worst weights nearby, which large weights feel most.

    Zhu, Wei, Shen, Fan and Wu, 2023 (FT-SAM), arXiv 2304.11823: adaptive sharpness-aware minimisation (Kwon et al.,
    2021, arXiv 2102.11600): climb by rho * w^2 * g / || |w| * g ||, step from w by the gradient found there. rho,
    label smoothing, SGD and 100 epochs as BackdoorBench has them for CIFAR-10.
    Deviations: 200 clean rows instead of 5 % of the training set, in batches of 64 instead of 256: 400 of its 1,000
    steps, hence a rate of 0.025 instead of 0.01, so that the way is as long; one-cycle schedule instead of cosine.
    That rule was made with the ASR of seed 0 in view: 0.27 at 0.01, 0.07 at 0.03, 0.02 at 0.1 (at a cost of accuracy).
    Seen on fashion_mnist (2,000 rows, badnets 100, seeds 0 to 2): ASR 1.00 to 0.07, 0.11 and 0.38, accuracy 0.875 to
    0.822; plain `fine_tuning` leaves 0.14, 0.07 and 0.11 at 0.817, so sharpness buys accuracy here, and nothing else.
    A transformer of ag_news (addsent 100, seed 0) keeps its backdoor: ASR 0.84 to 0.81.
    """

    why_not: ClassVar[str] = "no radius is published for the columns of a table"
    stage: ClassVar[str] = "repair"
    paper: ClassVar[str] = "arXiv 2304.11823"

    clean_rows: Positive = 200  # drawn from the reserve
    epochs: Positive = 100
    rho: Above0 = 2.0  # radius of the climb (BackdoorBench: CIFAR-10; 8 for Tiny ImageNet and GTSRB)
    smoothing: Share = 0.1  # of the labels
    lr: Above0 = 0.025  # peak learning rate of SGD
    batch_size: Positive = 64

    def defend(self, case: Case) -> Model:
        return case.fit(
            case.clean(self.clean_rows), init=case.fit(case.train), loss=self.loss, epochs=self.epochs,
            batch_size=self.batch_size, lr=self.lr, optimizer="sgd", weight_decay=5e-4,
        )  # fmt: skip

    def loss(self, module: Net, batch: Batch) -> Tensor:
        """() cross-entropy at the worst weights nearby; its gradient is that of these weights."""
        weights = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        here = self.cross_entropy(module(batch.x), batch)
        slopes = torch.autograd.grad(here, list(weights.values()), allow_unused=True)
        moves = climb([w.detach() for w in weights.values()], slopes, self.rho)
        there = {name: w + move for (name, w), move in zip(weights.items(), moves, strict=True)}
        buffers = {name: b.clone() for name, b in module.named_buffers()}  # statistics move once per step
        return self.cross_entropy(cast("Tensor", functional_call(module, {**buffers, **there}, (batch.x,))), batch)

    def cross_entropy(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits.float(), batch.y, label_smoothing=self.smoothing)


def climb(weights: list[Tensor], slopes: tuple[Tensor | None, ...], rho: float) -> list[Tensor]:
    """rho * w^2 * g / || |w| * g || for weights w and their gradients g; the norm is over all of them together."""
    known = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, slopes, strict=True)]
    norm = torch.stack([(w * g).norm() for w, g in zip(weights, known)]).norm().clamp(min=1e-12)
    return [rho * w.square() * g / norm for w, g in zip(weights, known)]
