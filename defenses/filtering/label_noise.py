"""Label noise: drops the rows that a classifier of clean media reads as another class than their condition says."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from defenses.base import Case, Defense, refit_without
from defenses.filtering.confident_learning import assign_folds, predict_logistic, to_vectors
from tasks.deployed import Model
from tasks.plugin import Positive, Share, options
from tasks.samples import Samples, take


@options
class LabelNoise(Defense):
    """Drops the training rows in which a classifier, learnt from clean rows, does not see what they are said to be.

    How image-text corpora are cleaned: pairs that a separate model finds unalike are dropped (Schuhmann et al., 2021,
    LAION-400M, arXiv 2111.02114, section 2: CLIP similarity below 0.3). Deviations: the separate model is a logistic
    regression on principal components of the defender's own clean rows, and the threshold is a quantile of what
    cross-validation gives for those rows. A rare token in the condition is not read, only the class.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image_generation", "audio_generation")
    why_not: ClassVar[str] = "it compares media with what they are said to show; `confident_learning` is for labels"
    stage: ClassVar[str] = "filtering"
    paper: ClassVar[str] = "arXiv 2111.02114"

    clean_rows: Positive = 100  # from the reserve
    quantile: Share = 0.95  # of clean rows that would be kept

    def defend(self, case: Case) -> Model:
        clean, k = case.clean(self.clean_rows), len(case.task.classes)
        medium, rate = case.task.medium, case.task.rate
        known, rows = to_vectors(clean, medium, rate), to_vectors(case.train, medium, rate)
        fold, usual = assign_folds(clean.targets, case.rng), torch.zeros(len(clean))
        for part in sorted(set(fold.tolist())):
            inside, outside = (fold != part).nonzero().flatten(), (fold == part).nonzero().flatten()
            usual[outside] = improbability(known, clean, inside, take(known, outside), clean.targets[outside])
        everything = torch.arange(len(clean))
        suspicion = improbability(known, clean, everything, rows, case.train.targets % k)
        return refit_without(case, suspicion > usual.quantile(self.quantile), suspicion)


def improbability(
    known: Tensor | list[str], clean: Samples, inside: Tensor, unseen: Tensor | list[str], asked: Tensor
) -> Tensor:
    """(M,) 1 - probability of the class asked for, by a classifier of the clean rows `inside`."""
    probabilities, classes = predict_logistic(take(known, inside), clean.targets[inside], unseen)
    is_asked = classes[None] == asked[:, None]
    return (1 - (probabilities * is_asked).sum(1)).float()
