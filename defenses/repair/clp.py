"""Channel Lipschitzness pruning: switch off the channels that can change most for a small change of their input."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from defenses._batch_norm import find_convolutions
from defenses.base import Case, Defense
from tasks.deployed import Model
from tasks.plugin import AtLeast0, options


@options
class Clp(Defense):
    """Repair: prunes convolution channels of unusually large Lipschitz bound; it asks for no data at all.

    Zheng, Tang, Li and Liu, 2022 (CLP), arXiv 2208.03111: the bound of a channel is the largest singular value of its
    kernel, as a matrix of input channels by positions, times |gamma| / sqrt(running variance) of the batch norm behind
    it. Above mean + u * deviation over the channels of its layer, gamma and beta become 0.
    Called a bound by the paper, it is one up to the side of the kernel: the norm of a channel of the whole convolution
    lies between it and side times it. That factor, and 1.13 for the slope of GELU, is the same for all channels of a
    layer, so the cut is not moved by it.
    Seen on fashion_mnist (2,000 rows, badnets 100, seeds 0 to 2): u = 3, the published value, changes one victim of
    three (ASR 1.00, 0.25, 1.00), as of the few channels of a small network hardly one can be so far out; u = 2 leaves
    0.03, 0.09 and 0.37 at an accuracy of 0.835 instead of 0.875, without a single clean row. On fsdd (600 clips,
    tone_clip 100) neither value takes away any of the ASR of 1.00.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "audio")
    why_not: ClassVar[str] = "it reads convolutions with batch norm"
    stage: ClassVar[str] = "repair"
    paper: ClassVar[str] = "arXiv 2208.03111"

    u: AtLeast0 = 3.0  # standard deviations above the mean of a layer (published code; swept from 0 to 10)

    def defend(self, case: Case) -> Model:
        victim = case.fit(case.train)
        for convolution, norm in find_convolutions(victim):
            prune(norm, lipschitz_bounds(convolution.weight, norm), self.u)
        return victim


@torch.no_grad()
def lipschitz_bounds(weight: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """(C_out,) of the channels of a convolution (C_out, C_in, k, k) and the batch norm behind it."""
    assert norm.running_var is not None
    gain = norm.weight.abs() / (norm.running_var + norm.eps).sqrt()
    largest: Tensor = torch.linalg.matrix_norm(weight.float().flatten(2), ord=2)
    return largest * gain


@torch.no_grad()
def prune(norm: nn.BatchNorm2d, bounds: Tensor, u: float) -> None:
    """Zero gamma and beta of the channels whose bound (C,) is above mean + u * deviation."""
    kept = bounds <= bounds.mean() + u * bounds.std()
    norm.weight.mul_(kept)
    norm.bias.mul_(kept)
