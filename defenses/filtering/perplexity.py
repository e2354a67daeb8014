"""Perplexity filter: drops the training documents that a model of clean text finds unlikely."""

from __future__ import annotations

from typing import ClassVar

import torch

from defenses.base import Case, Defense, refit_without
from tasks.deployed import Model
from tasks.fluency import WordBigrams, train_unread
from tasks.plugin import Positive, Share, options


@options
class Perplexity(Defense):
    """Drops the training documents whose least likely stretch of words is unlike anything in clean ones.

    The quality filter of web corpora, after CCNet (Wenzek et al., 2020, arXiv 1911.00359, section 3.3), and what a
    reviewer of Souly et al. (arXiv 2510.07192) asked for. Deviations: CCNet cuts the worst part of a corpus by a
    5-gram model of Wikipedia; here word bigrams of the defender's clean documents over the spelling of all training
    words, and the threshold is a quantile of clean documents that the model has not read. A document counts as its
    worst stretch, because a poison begins with clean text.
    """

    modalities: ClassVar[tuple[str, ...]] = ("text", "language")
    why_not: ClassVar[str] = "it reads words"
    stage: ClassVar[str] = "filtering"
    paper: ClassVar[str] = "arXiv 1911.00359"

    clean_rows: Positive = 200  # documents from the reserve
    stretch: Positive = 8  # words
    quantile: Share = 0.99  # of clean documents that stay

    def defend(self, case: Case) -> Model:
        train, clean = list(case.train.inputs), list(case.clean(self.clean_rows).inputs)
        reader, threshold = fit_reader(clean, [*train, *clean], self.stretch, self.quantile)
        suspicion = torch.tensor([reader.worst_rate(text.split(), self.stretch) for text in train])
        return refit_without(case, suspicion > threshold, suspicion)


def fit_reader(clean: list[str], others: list[str], stretch: int, quantile: float) -> tuple[WordBigrams, float]:
    """Bigrams of clean texts that can spell the others too, and what that share of the clean ones stays below."""
    reader, unread_by = train_unread(clean, others)
    usual = [model.worst_rate(text.split(), stretch) for model, text in zip(unread_by, clean)]
    return reader, float(torch.tensor(usual).quantile(quantile))
