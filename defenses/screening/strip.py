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

from defenses.base import Case, Defense, seed_of
from tasks.deployed import Guarded, Model
from tasks.plugin import Above0, Positive, Share, options
from tasks.samples import Samples


@options
class Strip(Defense):
    """Screening: lays clean inputs over each input; refuses those whose predictions stay too certain (low entropy).

    Gao, Xu, Wang, Chen, Ranasinghe and Nepal, 2019, arXiv 1902.06531, sections 4 and 5: overlays are added and clipped.
    Texts as in the authors' arXiv 1911.10312: half of the words are replaced by a clean text's words of highest TF-IDF.
    Deviations: one draw of overlays serves all inputs, so an input's answer does not depend on what else is asked; 16
    overlays instead of 100, because each costs a prediction; overlays have half weight (BackdoorBench); the threshold
    is an empirical quantile over clean rows that are no overlays, where the paper fits a normal distribution.
    """

    why_not: ClassVar[str] = "one row of a table laid over another is no row"
    stage: ClassVar[str] = "screening"
    paper: ClassVar[str] = "arXiv 1902.06531"

    clean_rows: Annotated[int, Field(ge=2)] = 200  # drawn from the reserve: overlays, the rest sets the threshold
    overlays: Positive = 16  # perturbed copies per input, at most half of `clean` (paper: 100, BackdoorBench: 64)
    alpha: Above0 = 0.5  # weight of the overlay in images and sounds (BackdoorBench; other toolboxes: 1)
    replaced: Share = 0.5  # of the words of a text (OpenBackdoor)
    false_rejection: Share = 0.05  # of clean inputs, sets the threshold (BackdoorBench; paper: 0.01)

    def defend(self, case: Case) -> Model:
        victim, clean = case.fit(case.train), case.clean(self.clean_rows)
        order = torch.randperm(len(clean), generator=case.rng)
        n = min(self.overlays, len(clean) // 2)
        overlays, held_out = clean.select(order[:n]), clean.select(order[n:])
        seed = seed_of(case.rng)
        strength = self.replaced if case.task.modality == "text" else self.alpha
        screen = partial(suspicion, victim, overlays=overlays, strength=strength, seed=seed)
        threshold = torch.quantile(screen(held_out), 1 - self.false_rejection)
        return Guarded(victim, screen=screen, threshold=float(threshold))


def suspicion(model: Model, samples: Samples, *, overlays: Samples, strength: float, seed: int) -> Tensor:
    """(N,) minus the mean entropy of the model's answers over all overlays, in bits."""
    total = torch.zeros(len(samples))
    for inputs in lay_over(samples.inputs, overlays.inputs, strength, seed):
        total += entropy(model.predict(samples.with_inputs(inputs)).scores)
    return -total / len(overlays)


def entropy(scores: Tensor) -> Tensor:
    """(N,) Shannon entropy of probabilities (N, K), in bits."""
    nats: Tensor = torch.special.entr(scores).sum(1)
    return nats / math.log(2)


def lay_over(
    inputs: Tensor | list[str], overlays: Tensor | list[str], strength: float, seed: int
) -> Iterator[Tensor | list[str]]:
    """All inputs under one overlay after the other. strength: its weight, or the share of words it replaces."""
    if isinstance(inputs, list):
        for i, words in enumerate(by_tfidf([str(text) for text in overlays])):
            yield [replace_words(text, words, strength, f"{seed} {i}") for text in inputs]
    else:
        for overlay in overlays:
            yield superimpose(inputs, overlay, strength)  # type: ignore[arg-type]


def superimpose(inputs: Tensor, overlay: Tensor, alpha: float) -> Tensor:
    """inputs + alpha * overlay, clipped: images to 0..255, sounds to [-1, 1]. inputs (N, ...), overlay (...)."""
    total = inputs.float() + alpha * overlay.float()
    return total.clamp(-1, 1) if inputs.is_floating_point() else total.clamp(0, 255).round().to(inputs.dtype)


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
