"""STRIP: an input that keeps its class whatever is laid over it carries a trigger."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from random import Random
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from defenses.base import Case, Defense
from tasks.base import Positive, Samples, Share, options
from tasks.deployed import Guarded, Model


@options
class Strip(Defense):
    """Screening: lays clean inputs over each input; refuses those whose predictions stay too certain (low entropy).

    Gao et al., 2019, arXiv 1902.06531, sections 4 and 5; texts as in the authors' arXiv 1911.10312 and OpenBackdoor:
    half of the words are replaced by the words of a clean text with the highest TF-IDF.
    Deviations: one draw of overlays serves all inputs, so an input's answer does not depend on what else is asked; 16
    overlays instead of 64 to 100, because each costs a prediction; the threshold is the empirical quantile of clean
    rows that are not overlays, where the paper fits a normal distribution; sounds are mixed as images are.
    """

    stage: ClassVar[str] = "screening"
    paper: ClassVar[str] = "arXiv 1902.06531"

    clean: Annotated[int, Field(ge=2)] = 200  # clean rows, out of the reserve: overlays, the rest sets the threshold
    overlays: Positive = 16  # perturbed copies per input, at most half of `clean` (paper: 100)
    alpha: Share = 0.5  # weight of the overlay in images and sounds, share of the words replaced in texts
    false_rejection: Share = 0.05  # of clean inputs, sets the threshold (paper: 0.01)

    def defend(self, case: Case) -> Model:
        victim, clean = case.fit(case.train), case.clean(self.clean)
        order = torch.randperm(len(clean), generator=case.rng)
        n = min(self.overlays, len(clean) // 2)
        overlays, held_out = clean.select(order[:n]), clean.select(order[n:])
        seed = int(torch.randint(2**31 - 1, (), generator=case.rng))
        screen = partial(suspicion, victim, overlays=overlays, alpha=self.alpha, seed=seed)
        threshold = torch.quantile(screen(held_out), 1 - self.false_rejection)
        return Guarded(victim, screen=screen, threshold=float(threshold))


def suspicion(model: Model, samples: Samples, *, overlays: Samples, alpha: float, seed: int) -> Tensor:
    """(N,) minus the mean entropy of the model's answers over all overlays, in bits."""
    total = torch.zeros(len(samples))
    for inputs in perturbed(samples.inputs, overlays.inputs, alpha, seed):
        total += entropy(model.predict(samples.with_inputs(inputs)).scores)
    return -total / len(overlays)


def entropy(scores: Tensor) -> Tensor:
    """(N,) Shannon entropy of probabilities (N, K), in bits."""
    return torch.special.entr(scores).sum(1) / math.log(2)


def perturbed(
    inputs: Tensor | list[str], overlays: Tensor | list[str], alpha: float, seed: int
) -> Iterator[Tensor | list[str]]:
    """All inputs under one overlay after the other."""
    if isinstance(inputs, list):
        for i, words in enumerate(by_tfidf([str(text) for text in overlays])):
            yield [replace_words(text, words, alpha, f"{seed} {i}") for text in inputs]
    else:
        for overlay in overlays:
            yield superimpose(inputs, overlay, alpha)  # type: ignore[arg-type]


def superimpose(inputs: Tensor, overlay: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) * inputs + alpha * overlay, in the inputs' dtype. inputs (N, ...), overlay (...)."""
    mixed = (1 - alpha) * inputs.float() + alpha * overlay.float()
    return mixed if inputs.is_floating_point() else mixed.round().to(inputs.dtype)


def replace_words(text: str, words: list[str], share: float, seed: str) -> str:
    """A share of the text's words replaced by `words`, at places that the text and the seed alone determine."""
    out = text.split()
    places = Random(f"{seed} {text}").sample(range(len(out)), round(share * len(out)))
    for place, word in zip(places, cycle(words)):
        out[place] = word
    return " ".join(out)


def by_tfidf(texts: list[str]) -> list[list[str]]:
    """Each text's different words by falling TF-IDF (smoothed as in scikit-learn)."""
    counts = [Counter(text.split()) for text in texts]
    documents = Counter(word for count in counts for word in count)
    idf = {word: math.log((1 + len(texts)) / (1 + n)) + 1 for word, n in documents.items()}
    return [sorted(count, key=lambda word: (-count[word] * idf[word], word)) for count in counts]
