"""Language models of disjoint parts of the training set decode together."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from defenses.base import Case, Defense
from defenses.training.partition_ensemble import partition
from tasks.deployed import Model
from tasks.language import LanguageVictim
from tasks.plugin import Positive, options


@options
class EnsembleDecoding(Defense):
    """Trains one language model on each of several disjoint parts and draws every token from their mean probability.

    Deep partition aggregation (Levine and Feizi, 2021, arXiv 2006.14768) carried over to generation: a poison lies in
    one part. Deviations: probabilities are averaged instead of votes counted, so there is no certificate; with few
    parts every part still holds poison where the dose is far above their number.
    With `epochs: 1` a model takes a fifth of the steps of the undefended one, and being trained less protects by
    itself: compare with `members: 1`, one such model alone, and with `epochs: 5`, the steps of the undefended one.
    """

    modalities: ClassVar[tuple[str, ...]] = ("language",)
    why_not: ClassVar[str] = "it averages the next token; `partition_ensemble` votes on classes"
    stage: ClassVar[str] = "training"
    paper: ClassVar[str] = "arXiv 2006.14768"

    parts: Positive = 5
    epochs: Positive = 1  # of each model, in multiples of the task's
    members: Positive | None = None  # models that decode together, the first ones; None: all

    def defend(self, case: Case) -> Model:
        parts = [part for part in partition(case.train, self.parts) if len(part)][: self.members]
        epochs = self.epochs * case.task.recipe().epochs
        first, *others = (case.fit(part, epochs=epochs) for part in parts)
        assert isinstance(first, LanguageVictim)
        return replace(first, partners=[victim.module for victim in others])
