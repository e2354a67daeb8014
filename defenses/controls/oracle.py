"""The upper bound: drop exactly the poison."""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor

from defenses.base import Case, Defense, refit_without
from tasks.deployed import Model
from tasks.plugin import options


class OracleCase(Case, Protocol):
    """A case that also reveals the poison. Only `Oracle` gets one, see harness.cell.case.case_for."""

    poisoned: Tensor  # (N,) bool


@options
class Oracle(Defense):
    """Control: is told which rows are poison and drops exactly those; what perfect filtering would achieve."""

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "control"

    def defend(self, case: OracleCase) -> Model:  # type: ignore[override]
        return refit_without(case, case.poisoned)
