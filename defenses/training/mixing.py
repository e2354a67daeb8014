"""Mixup and CutMix: no training sample is ever seen alone."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.base import Case, Defense
from tasks.base import Batch
from tasks.deployed import Model
from tasks.net import Net
from tasks.plugin import Above0, options


@options
class Mixing(Defense):
    """Trains on mixtures of two samples and of their labels, so that a trigger seldom meets its label undiluted.

    Borgnia et al., 2020, arXiv 2011.09527; mixup is Zhang et al., 2017, arXiv 1710.09412, CutMix is Yun et
    al., 2019, arXiv 1905.04899. One share and one partner order per batch, as in both papers' code.
    Deviations: embedded inputs are mixed (pixels, log-mel frames, token vectors), after augmentation. CutMix cuts a
    rectangle out of images and log-mel frames and a run of tokens out of texts; there the label's share is counted
    in real tokens, row by row. Every batch is mixed.
    """

    why_not: ClassVar[str] = "half of one row of a table and half of another are no row"
    stage: ClassVar[str] = "training"
    paper: ClassVar[str] = "arXiv 2011.09527"

    kind: Literal["mixup", "cutmix"] = "cutmix"  # mixup alone stops no patch that is learned from few rows
    alpha: Above0 = 1.0  # both parameters of the Beta distribution of the share kept; 1 = uniform

    def defend(self, case: Case) -> Model:
        return case.fit(case.train, loss=self.loss)

    def loss(self, module: Net, batch: Batch) -> Tensor:
        """(B,) cross-entropy with the mixed labels."""
        draw = np.random.default_rng(int(torch.randint(2**31 - 1, (), generator=batch.rng, device=batch.x.device)))
        partner = torch.randperm(len(batch.x), generator=batch.rng, device=batch.x.device)
        share = float(draw.beta(self.alpha, self.alpha))
        e = module.embed(batch.x)
        if self.kind == "mixup":
            mixed, own_share = share * e + (1 - share) * e[partner], torch.full((len(e),), share, device=e.device)
        elif e.ndim == 3:
            mixed, own_share = cut_tokens(e, batch.x != 0, partner, share, draw)
        else:
            mixed, own_share = cut_rectangle(e, partner, share, draw)
        logits = module.head(module.body(mixed)).float()
        own = F.cross_entropy(logits, batch.y, reduction="none")
        other = F.cross_entropy(logits, batch.y[partner], reduction="none")
        return own_share * own + (1 - own_share) * other


def cut_rectangle(e: Tensor, partner: Tensor, share: float, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) with one rectangle of about 1 - share of the area taken from the partner, and (B,) the area kept."""
    h, w = e.shape[2:]
    side = (1 - share) ** 0.5
    top, left = int(draw.integers(h)) - int(h * side) // 2, int(draw.integers(w)) - int(w * side) // 2
    rows, cols = torch.arange(h, device=e.device)[:, None], torch.arange(w, device=e.device)
    cut = (rows >= top) & (rows < top + int(h * side)) & (cols >= left) & (cols < left + int(w * side))
    return torch.where(cut, e[partner], e), (1 - cut.float().mean()).expand(len(e))


def cut_tokens(
    e: Tensor, there: Tensor, partner: Tensor, share: float, draw: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """(B, L, E) with one run of tokens taken from the partner, and (B,) the share of its real tokens each row kept.

    there: (B, L) bool, false for padding. The run lies within the longest text, about 1 - share of its length.
    """
    length = int(there.any(0).nonzero().max()) + 1 if there.any() else 0
    run = round((1 - share) * length)
    start = int(draw.integers(length - run + 1))
    position = torch.arange(e.shape[1], device=e.device)
    cut = (position >= start) & (position < start + run)  # (L,)
    own, other = (there & ~cut).sum(1), (there[partner] & cut).sum(1)
    own_share = torch.where(own + other > 0, own / (own + other).clamp(min=1), 1.0)
    return torch.where(cut[:, None], e[partner], e), own_share
