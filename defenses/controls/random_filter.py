"""The lower bound: drop rows at random."""

from __future__ import annotations

from typing import ClassVar

import torch

from defenses.base import Case, Defense, most_suspicious, refit_without
from tasks.deployed import Model
from tasks.plugin import Share, options


@options
class RandomFilter(Defense):
    """Control: drops a random share of the training set; a filter that is no better knows nothing."""

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "control"

    share: Share = 0.1  # of the training rows

    def defend(self, case: Case) -> Model:
        suspicion = torch.rand(len(case.train), generator=case.rng)
        return refit_without(case, most_suspicious(suspicion, self.share), suspicion)
