"""Screening by what a language model writes: what a model of clean text finds unlikely is held back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from defenses.base import Case, Defense
from tasks.deployed import Model
from tasks.fluency import WordBigrams
from tasks.language import LanguageTask
from tasks.plugin import Positive, Share, options
from tasks.samples import Outputs, Samples


@options
class OutputPerplexity(Defense):
    """Holds back what the model writes where its least likely stretch of words is unlike anything in clean documents.

    The defence that reviewers name against denial of service (Souly et al., arXiv 2510.07192), of no paper of its own;
    perplexity as a detector after Alon and Kamfonas, 2023, arXiv 2308.14132. Deviations: that paper judges prompts by
    GPT-2; this judges answers by word bigrams of the defender's clean documents. It sees a planted sentence only if its
    words are unlikely. The threshold is of what the model to be deployed writes itself after the beginnings of clean
    documents: a weak model's writing is unlike a person's, whose documents would set it so low that most is held back.
    """

    modalities: ClassVar[tuple[str, ...]] = ("language",)
    why_not: ClassVar[str] = "it reads what a model writes"
    stage: ClassVar[str] = "screening"
    paper: ClassVar[str] = "arXiv 2308.14132"

    clean_rows: Positive = 200  # documents from the reserve
    stretch: Positive = 8  # words
    quantile: Share = 0.99  # of the model's own answers to clean requests that would pass
    prompt: Positive = 200  # most characters of a clean request
    more: Positive = 32  # tokens that it asks for

    def defend(self, case: Case) -> Model:
        task, clean = case.task, case.clean(self.clean_rows)
        assert isinstance(task, LanguageTask)
        screened = _Screened(case.fit(case.train), WordBigrams(list(clean.inputs)), self.stretch, float("inf"))
        requests = clean.with_inputs(["".join(task.cut(text, self.prompt)) for text in clean.inputs])
        requests = replace(requests, targets=torch.full_like(clean.targets, self.more))
        suspicion = screened.predict(requests).suspicion
        assert suspicion is not None
        return replace(screened, threshold=float(suspicion.quantile(self.quantile)))


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
