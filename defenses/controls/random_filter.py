"""The lower bound: drop rows at random."""

from __future__ import annotations

from typing import ClassVar

import torch

from defenses.base import Case, Defense, refit_without
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
        flagged = torch.zeros(len(case.train), dtype=torch.bool)
        flagged[suspicion.topk(int(self.share * len(case.train))).indices] = True
        return refit_without(case, flagged, suspicion)
