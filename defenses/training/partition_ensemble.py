"""Deep Partition Aggregation: many models of disjoint parts vote, and the vote is certified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from defenses.base import Case, Defense
from tasks.deployed import Ensemble, Model
from tasks.plugin import Positive, options
from tasks.samples import Outputs, Samples, hash_rows


@dataclass
class _Silent:
    """What an empty part deploys: a model that never votes."""

    classes: int

    def predict(self, samples: Samples) -> Outputs:
        n = len(samples)
        return Outputs(torch.zeros(n, self.classes), torch.ones(n, dtype=torch.bool))


@options
class PartitionEnsemble(Defense):
    """Splits the training set by a hash into disjoint parts, one model each, and lets them vote; gives a certificate.

    Levine and Feizi, 2021 (DPA), arXiv 2006.14768, section 3 and Theorem 1: every row lies in one part and so turns at
    most one vote. A poison that takes the place of a clean row changes two parts, that of the clean row and its own, so
    the radius in poisons is half of the paper's, which counts insertions and deletions.
    Deviations: fewer parts than the published 50 to 1200, because the training sets here are far smaller (see `parts`);
    the hash is BLAKE2 of the raw input, not the sum of its pixels, so that it works on texts and sounds as well; ties
    go by an order of the classes that the input decides, not to the lower class, which is the target of most attacks
    here. A part that no row falls into has no vote. As published each model gets a whole schedule of its own: batches
    are smaller by the number of parts, so that it takes no fewer steps than the undefended victim.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio", "tabular")
    stage: ClassVar[str] = "training"
    paper: ClassVar[str] = "arXiv 2006.14768"

    parts: Positive = 20  # votes; published: 50 or 250 of CIFAR-10's 50000 images, so 1000 or 200 rows a part
    epochs: Positive = 3  # epochs of every part's model, in multiples of the task's
    least_batch: Positive = 8  # rows of a batch at least: batch norm needs some

    def defend(self, case: Case) -> Model:
        return Ensemble(fit_parts(case, partition(case.train, self.parts), self.epochs, self.least_batch), turned=2)


def fit_parts(case: Case, parts: list[Samples], epochs: int, least_batch: int) -> list[Model]:
    """A model of each part, trained for a multiple of the task's epochs; of an empty one a model that never votes."""
    usual = case.task.recipe()
    batch = min(usual.batch_size, max(least_batch, usual.batch_size // len(parts)))
    return [
        case.fit(part, epochs=epochs * usual.epochs, batch_size=batch) if len(part) else _Silent(len(case.task.classes))
        for part in parts
    ]


def partition(samples: Samples, parts: int) -> list[Samples]:
    """Disjoint parts by the hash of the inputs alone, each in the order of the hashes.

    Neither positions nor ids nor other rows matter, so one poison changes one part and leaves the others as they were,
    which the certificate needs (and lets an unchanged part's model be used again).
    """
    hashes = hash_rows(samples)
    order = sorted(range(len(samples)), key=lambda row: (hashes[row], int(samples.targets[row])))
    return [samples.select([row for row in order if hashes[row] % parts == part]) for part in range(parts)]
