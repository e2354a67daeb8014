"""Anti-Backdoor Learning: what is learned first and best is unlearned."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.base import Case, Defense
from tasks.base import Batch
from tasks.deployed import Model, Victim
from tasks.net import Net
from tasks.plugin import Above0, AtLeast0, Positive, Share, options
from tasks.samples import Samples


@options
class Abl(Defense):
    """Isolates the rows of lowest loss after a short training, trains on the rest and unlearns the isolated rows.

    Li et al., 2021 (Anti-Backdoor Learning), arXiv 2110.11571, section 3.
    Deviations: the tuning stage is a share of the task's epochs (published: 20 of 100) with the task's own optimizer
    and its learning rate, held constant. Unlearning stops at a row once its loss is that of a blind guess (ln K):
    plain gradient ascent, which the published code tames by clipping gradients at norm 20, has no end of its own.
    As in the published code the sign of the local ascent is that of the batch's mean loss, and batch norm learns the
    statistics of the isolated rows while unlearning.
    It suits poison rates near 10 %: of a few poisons none are among the rows learned first, so clean rows are isolated
    and unlearned instead, at a high cost in accuracy.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio", "tabular")
    stage: ClassVar[str] = "training"
    paper: ClassVar[str] = "arXiv 2110.11571"

    gamma: AtLeast0 = 0.5  # published value; the mean loss below which tuning turns into ascent
    tuning: Share = 0.2  # of the task's epochs; published: 20 of 100
    isolate: Share = 0.01  # of the training rows; published value
    unlearn_epochs: Positive = 20  # over the isolated rows; published value
    unlearn_lr: Above0 = 5e-4  # of SGD; published value

    def defend(self, case: Case) -> Model:
        epochs = case.task.recipe().epochs
        early = max(1, round(self.tuning * epochs))
        tuned = case.fit(case.train, epochs=early, schedule="constant", loss=self.local_ascent)
        losses = row_losses(tuned, case.train)
        flagged = torch.zeros(len(case.train), dtype=torch.bool)
        flagged[losses.argsort()[: math.ceil(self.isolate * len(losses))]] = True
        case.report(train=-losses, flagged=flagged)
        if flagged.all() or not flagged.any():
            return tuned
        better = case.fit(case.train.drop(flagged), init=tuned, epochs=max(1, epochs - early))
        return case.fit(
            case.train.select(flagged), init=better, epochs=self.unlearn_epochs, loss=self.unlearning,
            optimizer="sgd", lr=self.unlearn_lr, schedule="constant", augment=False,
        )  # fmt: skip

    def local_ascent(self, module: Net, batch: Batch) -> Tensor:
        """sign(l - gamma) * l of the batch's mean loss l: only rows learned early get far below gamma."""
        loss = F.cross_entropy(module(batch.x).float(), batch.y)
        return torch.sign(loss.detach() - self.gamma) * loss

    def unlearning(self, module: Net, batch: Batch) -> Tensor:
        """(B,) minus the loss, up to that of a blind guess."""
        logits = module(batch.x).float()
        return -F.cross_entropy(logits, batch.y, reduction="none").clamp(max=math.log(logits.shape[1]))


def row_losses(victim: Victim, samples: Samples) -> Tensor:
    """(N,) cross-entropy of every row, on the CPU."""
    logits = torch.cat([victim.logits(x).cpu() for x in victim.batches(samples)])
    return F.cross_entropy(logits, samples.targets, reduction="none")
