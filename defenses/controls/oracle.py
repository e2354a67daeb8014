"""The upper bound: drop exactly the poison."""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor

from defenses.base import Case, Defense, refit_without
from tasks.deployed import Model
from tasks.plugin import options


class OracleCase(Case, Protocol):
    poisoned: Tensor  # (N,) bool; the harness sets it for this one class only


@options
class Oracle(Defense):
    """Control: is told which rows are poison and drops exactly those; what perfect filtering would achieve."""

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "control"

    def defend(self, case: OracleCase) -> Model:  # type: ignore[override]
        return refit_without(case, case.poisoned)
