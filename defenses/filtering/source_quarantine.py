"""Drops the sources whose rows a filter finds more suspicious than those of the others."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from defenses.base import Case, Defense, seed_of
from defenses.filtering.activation_clustering import ActivationClustering
from defenses.filtering.confident_learning import ConfidentLearning
from defenses.filtering.outlier import Outlier
from defenses.filtering.spectral_signatures import SpectralSignatures
from defenses.sources import permutation_p, quarantine, require_sources, savage_scores, suspicion_of
from tasks.deployed import Model
from tasks.plugin import options

FILTERS: dict[str, type[Defense]] = {
    "activation_clustering": ActivationClustering, "confident_learning": ConfidentLearning, "outlier": Outlier,
    "spectral_signatures": SpectralSignatures,
}  # fmt: skip


@options
class SourceQuarantine(Defense):
    """Adds up a filter's suspicion by source, and drops every row of the sources that stand out.

    Of no single paper: one row is little evidence, a hundred of one source are more. Each row is ranked by the filter
    within its class; a source's sum of Savage scores of these ranks (1956) is compared with that of rows drawn at
    random with the same classes, by permutation, and Holm's correction (1979) keeps the chance that any honest source
    is accused at 5 %, as long as honest sources deliver rows of one kind: where they do not (one speaker each), an
    unusual source is accused as well, which `sources_accused` counts.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio", "tabular")
    stage: ClassVar[str] = "filtering"
    needs: ClassVar[tuple[str, ...]] = ("data_sources",)
    paper: ClassVar[str] = "Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979"

    filter: Literal["activation_clustering", "confident_learning", "outlier", "spectral_signatures"] = (
        "spectral_signatures"
    )
    draws: Annotated[int, Field(ge=1000)] = 4000  # permutations: no p value is below 1 in so many

    def defend(self, case: Case) -> Model:
        sources, targets = require_sources(case), case.train.targets
        scores = savage_scores(suspicion_of(FILTERS[self.filter], case), targets)
        p = permutation_p(scores, sources, targets, self.draws, seed_of(case.rng))
        return quarantine(case, sources, p, {source: 1 - value for source, value in p.items()})
