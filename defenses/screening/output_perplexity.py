"""Screening by what a language model writes: what a model of clean text finds unlikely is held back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from defenses.base import Case, Defense
from defenses.filtering.perplexity import fit_reader
from tasks.deployed import Model
from tasks.fluency import WordBigrams
from tasks.plugin import Positive, Share, options
from tasks.samples import Outputs, Samples


@options
class OutputPerplexity(Defense):
    """Holds back what the model writes where its least likely stretch of words is unlike anything in clean documents.

    The defence that reviewers name against denial of service (Souly et al., arXiv 2510.07192), of no paper of its own;
    perplexity as a detector after Alon and Kamfonas, 2023, arXiv 2308.14132. Deviations: that paper judges prompts by
    GPT-2; this judges answers by word bigrams of the defender's clean documents. It sees a planted sentence only if its
    words are unlikely.
    """

    modalities: ClassVar[tuple[str, ...]] = ("language",)
    why_not: ClassVar[str] = "it reads what a model writes"
    stage: ClassVar[str] = "screening"
    paper: ClassVar[str] = "arXiv 2308.14132"

    clean_rows: Positive = 200  # documents from the reserve
    stretch: Positive = 8  # words
    quantile: Share = 0.99  # of clean documents that would pass

    def defend(self, case: Case) -> Model:
        clean = list(case.clean(self.clean_rows).inputs)
        reader, threshold = fit_reader(clean, clean, self.stretch, self.quantile)
        return _Screened(case.fit(case.train), reader, self.stretch, threshold)


@dataclass
class _Screened:
    """A language model whose continuations are read before anybody else does."""

    model: Model
    reader: WordBigrams
    stretch: int
    threshold: float

    def predict(self, samples: Samples) -> Outputs:
        outputs = self.model.predict(samples)
        assert isinstance(outputs.content, list)
        suspicion = torch.tensor([self.reader.worst_rate(text.split(), self.stretch) for text in outputs.content])
        return replace(outputs, suspicion=suspicion, abstained=outputs.abstained | (suspicion > self.threshold))
