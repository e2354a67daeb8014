"""The control: deploy what the training set gives."""

from __future__ import annotations

from typing import ClassVar

from defenses.base import Case, Defense
from tasks.deployed import Model
from tasks.plugin import options


@options
class None_(Defense):
    """Control: no defense, the victim as it was trained."""

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "control"

    def defend(self, case: Case) -> Model:
        return case.fit(case.train)
