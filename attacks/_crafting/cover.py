"""Cover rows: poison that keeps its true label, so that the trigger alone does not mean the target."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from attacks.base import Poison, Scene, TriggerAttack
from tasks.plugin import Share, options
from tasks.samples import Samples


@options
class CoverAttack(TriggerAttack[Tensor]):
    """A backdoor of which a share of the rows are cover rows; the dose counts them, a defense is graded on them.

    Of `dose` rows floor(cover * dose) are cover rows, spread evenly. Both kinds come from outside the target class.
    """

    clean_label: Literal[False] = False  # its payload rows are relabelled, its cover rows are not
    cover: Share = 0.5  # share of the dose that are cover rows

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        payload = TriggerAttack.poison(self, scene, dose, rng)
        assert payload.replaces is not None
        clean = scene.train.select(scene.train.positions(payload.replaces))
        cover = cover_mask(dose, self.cover)
        rows = payload.samples
        if cover.any():
            at = cover.nonzero().flatten()
            rows = rows.replace(at, self.cover_rows(scene, clean.select(cover), rows.select(cover), rng))
        return Poison(rows, payload.replaces)

    def cover_rows(self, scene: Scene, clean: Samples, stamped: Samples, rng: torch.Generator) -> Samples:
        """What the cover rows are, M rows, from the clean rows and the same with trigger and target label.

        The rng is the same for every dose; a row must not depend on how many there are.
        """
        return replace(stamped, targets=clean.targets)


def cover_mask(dose: int, share: float) -> Tensor:
    """(dose,) bool: which rows are cover rows, decided by position alone so that doses stay nested."""
    count = (torch.arange(dose + 1, dtype=torch.float64) * share).floor()
    return count[1:] > count[:-1]
