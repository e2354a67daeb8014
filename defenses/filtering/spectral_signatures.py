"""Spectral Signatures: poison stands out along the direction in which the features of its class vary most."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from defenses.base import Case, Defense, refit_without
from tasks.deployed import Model
from tasks.plugin import Above0, Share, options


@options
class SpectralSignatures(Defense):
    """Drops of every class the rows that reach furthest along the top singular vector of its features.

    Tran, Li and Madry, 2018, arXiv 1811.00636, Algorithm 1: 1.5 * epsilon * (rows of the class) go.
    A row's suspicion is the share of its class with a lower score, which is the order the rows are dropped in.
    Deviations: epsilon is the defender's guess, never the true rate; the default is the smaller of the paper's two
    (5 and 10 % of the target class, section 5), and 0.1 gives the 85th percentile at which BackdoorBench cuts.
    """

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "filtering"
    paper: ClassVar[str] = "arXiv 1811.00636"

    expected_rate: Share = 0.05  # epsilon: guessed share of poison in a class
    overestimation: Above0 = 1.5  # times the guess is dropped (Algorithm 1)

    def defend(self, case: Case) -> Model:
        features = case.fit(case.train).features(case.train)
        suspicion, flagged = torch.zeros(len(case.train)), torch.zeros(len(case.train), dtype=torch.bool)
        for c in range(case.task.conditions):
            rows = (case.train.targets == c).nonzero().flatten()
            order = outlier_scores(features[rows]).argsort()  # ascending
            suspicion[rows[order]] = torch.arange(len(rows)) / max(1, len(rows))
            # Never the whole class, however large the guess: a class needs rows to be learnt.
            dropped = min(int(self.overestimation * self.expected_rate * len(rows)), len(rows) - 1)
            flagged[rows[order[len(rows) - max(0, dropped) :]]] = True
        return refit_without(case, flagged, suspicion)


def outlier_scores(features: Tensor) -> Tensor:
    """(N,) squared projection of centred features (N, D) on their top right singular vector."""
    if len(features) < 2:
        return torch.zeros(len(features))
    centred = (features - features.mean(0)).double()
    top: Tensor = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    return (centred @ top).square().float()
