"""Weights of few bits: what rounding the victim does to a backdoor."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from defenses.base import Case, Defense
from tasks.deployed import Model
from tasks.plugin import options

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)


@options
class Quantised(Defense):
    """Baseline: rounds the victim's weights to a few bits and deploys it; needs no data and no training.

    Rounding to the nearest with one scale for every row of a weight matrix, as LLM.int8() rounds weights (Dettmers,
    Lewis, Belkada and Zettlemoyer, 2022, arXiv 2208.07339, section 2). Most models are deployed so anyway.
    Deviations: activations keep their precision; convolutions and embeddings are rounded too; biases and norms are not.
    It protects from nothing by itself: classic_books with 50 steering documents (seed 0), ASR .95 as it is, .95 with 8
    bits and .97 with 4.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio", "language")
    stage: ClassVar[str] = "repair"
    paper: ClassVar[str] = "arXiv 2208.07339"

    bits: Annotated[int, Field(ge=2, le=16)] = 8  # of a weight, one of them for the sign

    def defend(self, case: Case) -> Model:
        victim = case.fit(case.train)
        with torch.no_grad():
            for layer in victim.module.modules():
                if isinstance(layer, KINDS):
                    layer.weight.copy_(round_weights(layer.weight, self.bits))
        return victim


def round_weights(weight: Tensor, bits: int) -> Tensor:
    """A weight (R, ...) in whole multiples of max |w| / (2^(bits-1) - 1) of its row."""
    rows = weight.flatten(1)
    scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / (2 ** (bits - 1) - 1)
    rounded: Tensor = (rows / scale).round() * scale
    return rounded.view_as(weight)
