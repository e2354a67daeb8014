"""The quietest rows only."""

from __future__ import annotations

from typing import ClassVar

from defenses.base import Case, Defense
from tasks.deployed import Model
from tasks.plugin import Share, options
from tinydrop_example.loudness import loudness


@options
class QuietRows(Defense):
    """Drops the brightest pictures, or the loudest recordings, before training."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "audio")
    why_not: ClassVar[str] = "text has no loudness"
    stage: ClassVar[str] = "filtering"
    paper: ClassVar[str] = "an example"

    share: Share = 0.1  # of the training rows dropped

    def defend(self, case: Case) -> Model:
        suspicion = loudness(case.train.inputs)
        flagged = suspicion > suspicion.quantile(1 - self.share)
        case.report(train=suspicion, flagged=flagged)
        return case.fit(case.train.drop(flagged))
