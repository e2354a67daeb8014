"""The defense interface: it gets the poisoned training set and `fit`, and returns the model that it would deploy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from tasks.base import Batch, Task
from tasks.deployed import Model, Victim
from tasks.net import Net
from tasks.plugin import Plugin
from tasks.samples import Samples

Loss = Callable[[Net, Batch], Tensor]  # (B,) or scalar


class Case(Protocol):
    """All that a defender sees: no poison mask, no dose and no test set."""

    train: Samples  # the poisoned training set
    task: Task  # its model, encoding, augmentation and loss; load() is refused while a defense runs
    rng: torch.Generator  # on the CPU, a seed of the cell's own
    device: torch.device

    def fit(
        self,
        samples: Samples,
        *,
        init: Victim | None = None,
        seed: int | None = None,
        loss: Loss | None = None,
        **recipe_changes: Any,
    ) -> Victim:
        """Train a victim as the task would, each content once: the same samples and options give the same victim.

        init: start from this victim's weights. seed: another initialisation and order (default: the cell's).
        loss: (module, batch) -> (B,) or scalar; a method of the defense, or functools.partial of one.
        recipe_changes: fields of tasks.base.Recipe, e.g. epochs=5, lr=1e-3, augment=False, frozen="body".
        Raises BadInput for samples without rows, with inputs that are not raw or finite, or with labels that are not
        the task's (a loss of one's own may have others); and for a recipe out of range.
        """
        ...

    def clean(self, n: int) -> Samples:
        """The first n rows of the reserve, or all of it if it is smaller; the record states this as the cost.

        Raises BadInput unless n is a whole number, 1 or more.
        """
        ...

    def report(
        self,
        *,
        train: Tensor | None = None,
        flagged: Tensor | None = None,
        model: float | None = None,
        target: int | None = None,
    ) -> None:
        """State what a detector believes; the harness, which alone knows the truth, computes AUROC, TPR and FPR.

        train: (N,) suspicion of each row of case.train, higher = worse, inf allowed. flagged: (N,) bool, rows called
        poison. model: suspicion of the model as a whole, finite. target: the number of the class believed to be the
        attacker's. Raises BadInput for another shape or type, and for NaN.
        """
        ...

    def save(self, name: str, tensor: Tensor) -> None:
        """Keep a float tensor with the record. (C, H, W) or (H, W) in [0, 1] is shown as a picture, (N,) as a curve.

        Raises BadInput for an empty one, and for more numbers than a finding may have.
        """
        ...


class Defense(Plugin):
    """One defense of the kind that `stage` names. A defense writes one method, `defend`."""

    stage: ClassVar[str] = ""  # filtering, training, repair, inspection, screening or control

    def defend(self, case: Case) -> Model:
        """The model to deploy. What its `predict` returns is checked as `tasks.samples.Outputs` says."""
        raise NotImplementedError(f"{type(self).__name__} must define defend()")


def most_suspicious(suspicion: Tensor, share: float) -> Tensor:
    """(N,) bool: the share of rows, rounded down, of highest suspicion (N,)."""
    flagged = torch.zeros(len(suspicion), dtype=torch.bool)
    flagged[suspicion.topk(int(share * len(suspicion))).indices] = True
    return flagged


def seed_of(rng: torch.Generator) -> int:
    """A seed drawn from a generator, for a library that takes no torch generator."""
    return int(torch.randint(2**31 - 1, (), generator=rng))


def refit_without(case: Case, flagged: Tensor, suspicion: Tensor | None = None) -> Victim:
    """The second half of filtering: report, drop the flagged rows (N,), train again on the rest."""
    case.report(train=flagged.float() if suspicion is None else suspicion, flagged=flagged)
    return case.fit(case.train.drop(flagged))
