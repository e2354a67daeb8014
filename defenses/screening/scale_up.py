"""SCALE-UP: an input that keeps its class however bright, or loud, it becomes carries a trigger."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from defenses.base import Case, Defense
from defenses.screening._halves import split_in_half
from tasks.deployed import Guarded, Model
from tasks.plugin import Positive, Share, options
from tasks.samples import Samples


@options
class ScaleUp(Defense):
    """Screening: multiplies each input by 3, 5, 7, 9, 11 and clips it; refuses it if it keeps its class too often.

    Guo, Li, Chen, Guo, Sun and Liu, 2023 (SCALE-UP), arXiv 2302.03251, the data-limited form: the share of copies with
    the input's own class, minus the mean of that share over clean rows of the class, divided by its standard
    deviation. Sounds are amplified.
    Deviation: the threshold is a quantile over clean rows that set no mean, instead of a fixed 0.5 or so.
    Unproven: on fashion_mnist stamped pictures do keep their class (99 % of badnets 100 at every factor), but so do 83
    to 88 % of clean ones, whose black ground stays black: AUROC 0.42, 0.83 and 0.67 (seeds 0 to 2), and no threshold
    stops them. On fsdd (tone_clip 100) AUROC is 0.88, 0.41 and 0.63.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "audio")
    why_not: ClassVar[str] = "it makes pixels brighter or sounds louder, and words have no such scale"
    stage: ClassVar[str] = "screening"
    paper: ClassVar[str] = "arXiv 2302.03251"

    clean_rows: Annotated[int, Field(ge=2)] = 200  # drawn from the reserve: means by class, the rest sets the threshold
    copies: Positive = 5  # of each input, times 3, 5, 7, ...
    false_rejection: Share = 0.05  # of clean inputs, sets the threshold

    def defend(self, case: Case) -> Model:
        victim, clean = case.fit(case.train), case.clean(self.clean_rows)
        known, held_out = split_in_half(clean, case.rng)
        shares, _ = consistency(victim, known, self.copies)
        means, deviations = by_class(shares, known.targets, len(case.task.classes), 0.5 / self.copies)
        screen = partial(suspicion, victim, means=means, deviations=deviations, copies=self.copies)
        threshold = screen(held_out).quantile(1 - self.false_rejection)
        return Guarded(victim, screen=screen, threshold=float(threshold))


def suspicion(model: Model, samples: Samples, *, means: Tensor, deviations: Tensor, copies: int) -> Tensor:
    """(N,) consistency, standardised by the class that the model answers."""
    shares, answers = consistency(model, samples, copies)
    return (shares - means[answers]) / deviations[answers]


def consistency(model: Model, samples: Samples, copies: int) -> tuple[Tensor, Tensor]:
    """(N,) share of scaled copies that get the answer of the input itself, and these answers (N,)."""
    answers = model.predict(samples).answers
    kept = torch.zeros(len(samples))
    for factor in range(3, 2 * copies + 2, 2):
        kept += model.predict(samples.with_inputs(scale(samples.inputs, factor))).answers == answers  # type: ignore[arg-type]
    return kept / copies, answers


def scale(inputs: Tensor, factor: int) -> Tensor:
    """Images times the factor, clipped to 0..255; sounds to [-1, 1]."""
    total = inputs.float() * factor
    return total.clamp(-1, 1) if inputs.is_floating_point() else total.clamp(0, 255).to(inputs.dtype)


def by_class(shares: Tensor, classes: Tensor, k: int, least: float) -> tuple[Tensor, Tensor]:
    """(K,) means and standard deviations of shares (N,); a class with one row or none gets those of all rows.

    least: the smallest deviation, half of the step between two shares: rows that are all alike have none.
    """
    means, deviations = shares.mean().repeat(k), shares.std(correction=0).repeat(k)
    for c in range(k):
        if (classes == c).sum() > 1:
            means[c], deviations[c] = shares[classes == c].mean(), shares[classes == c].std(correction=0)
    return means, deviations.clamp(min=least)
