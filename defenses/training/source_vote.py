"""One model for each source of data, which vote: a source can turn no vote but its own."""

from __future__ import annotations

from typing import ClassVar

import torch

from defenses.base import Case, Defense
from defenses.sources import require_sources
from defenses.training.partition_ensemble import fit_parts
from tasks.deployed import Ensemble, Model
from tasks.plugin import Positive, options
from tasks.sources import list_sources


@options
class SourceVote(Defense):
    """Trains a model on the rows of every source, or of several together, and lets them vote; gives a certificate.

    Deep Partition Aggregation (Levine and Feizi, 2021, arXiv 2006.14768, Theorem 1) with sources in the place of the
    hash, as ensembles of federated learning have it (Cao, Jia and Gong, 2021, arXiv 2102.01854). The radius is a number
    of bad *sources*, whatever they deliver and however much of it; it holds for as many poisons as well, since each
    lies with one source: what it replaces lies in the same part, so one vote is turned and not two.
    Deviations from DPA: those of `partition_ensemble`, but for the hash.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio", "tabular")
    why_not: ClassVar[str] = "votes are over classes"
    stage: ClassVar[str] = "training"
    needs: ClassVar[tuple[str, ...]] = ("data_sources",)
    paper: ClassVar[str] = "arXiv 2006.14768"

    parts: Positive | None = None  # votes, to which sources are dealt out by their number; None: one each, 20 at most
    epochs: Positive = 3  # of every part's model, in multiples of the task's
    least_batch: Positive = 8  # rows of a batch at least: batch norm needs some

    def defend(self, case: Case) -> Model:
        sources = require_sources(case)
        order = torch.tensor(list_sources(sources))
        count = min(self.parts or 20, len(order))
        part_of = torch.searchsorted(order, sources) % count
        parts = [case.train.select(part_of == part) for part in range(count)]
        return Ensemble(fit_parts(case, parts, self.epochs, self.least_batch), turned=1)
