"""The bound of every repair: throw the poisoned data away."""

from __future__ import annotations

from typing import ClassVar

from defenses.base import Case, Defense
from defenses.repair.fine_tuning import fine_tune
from tasks.deployed import Model
from tasks.plugin import Positive, options


@options
class ReserveOnly(Defense):
    """Control: a victim of the clean reserve alone, which never sees the training set.

    What a defense with that many clean rows has to beat, in accuracy where both stop the attack. It is trained as long
    as `fine_tuning` trains on: 100 epochs, of a generative task as many as usual, in batches of 64. A victim that
    starts from a pre-trained body or base model starts from it here too.
    """

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "control"

    clean_rows: Positive = 200  # drawn from the reserve
    epochs: Positive | None = None  # None: 100; of generative tasks as many as in training
    batch_size: Positive = 64

    def defend(self, case: Case) -> Model:
        batch = min(self.batch_size, case.task.recipe().batch_size)
        return fine_tune(case, case.clean(self.clean_rows), None, self.epochs, batch, lr_scale=1.0)
