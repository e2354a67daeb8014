"""Fine-tuning: train the victim on, with clean rows only."""

from __future__ import annotations

from typing import ClassVar

from defenses.base import Case, Defense
from tasks.deployed import Model, Victim
from tasks.plugin import Above0, Positive, options
from tasks.samples import Samples


@options
class FineTuning(Defense):
    """Repair: trains the victim on with a few clean rows, so that it forgets the trigger.

    Sha, He, Berrang, Humbert and Zhang, 2022, arXiv 2212.09067 ("conventional fine-tuning"); 100 epochs as in
    BackdoorBench (arXiv 2206.12654), which trains and fine-tunes by SGD at a rate of 0.01.
    Deviations: 200 clean rows, the whole default reserve, instead of 5 % of the training set; smaller batches, so that
    so few rows still give a few hundred steps; the task's own optimiser and one-cycle schedule instead of SGD, at half
    of the task's peak rate. That is the highest of 0.1, 0.3, 0.5 and 1 times that rate at which a victim of digits
    (seeds 100 and 101, which no published result has) stays above `reserve_only` in accuracy. The rule was made after
    a tenth had been seen to leave the trigger in, and with the ASR of all four in view, which flatters the default. At
    its full rate little of the victim is left after 100 epochs.
    """

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "repair"
    paper: ClassVar[str] = "arXiv 2212.09067"

    clean_rows: Positive = 200  # drawn from the reserve
    epochs: Positive | None = None  # None: BackdoorBench's 100; of generative tasks as many as in training
    batch_size: Positive = 64
    lr_scale: Above0 = 0.5  # peak learning rate, times the task's own

    def defend(self, case: Case) -> Model:
        victim, clean = case.fit(case.train), case.clean(self.clean_rows)
        return fine_tune(case, clean, victim, self.epochs, self.batch_size, self.lr_scale)


def fine_tune(
    case: Case, clean: Samples, victim: Victim | None, epochs: int | None, batch_size: int, lr_scale: float
) -> Victim:
    """The victim, trained further on clean rows: by default 100 epochs, in a generative task as many as in training.

    victim: None starts where every victim of the task does.
    """
    usual = case.task.recipe()
    epochs = epochs or (100 if case.task.referee() is None else usual.epochs)
    return case.fit(clean, init=victim, epochs=epochs, batch_size=batch_size, lr=lr_scale * usual.lr)
