"""Clean models of the same architecture, trained on the user's clean data: what is usual without backdoor."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from defenses.base import Defense
from harness.audit.behaviour import Plan, measure_shares
from harness.audit.detectors import inspect
from harness.audit.subject import CPU, Audited, share_right
from harness.cell.train import train_victim
from harness.keys.seeds import derive
from tasks.deployed import Victim
from tasks.samples import Samples

BATCHES = 3  # of the trial from which the time of a training is told


@dataclass(frozen=True)
class NullModel:
    """What one clean model says."""

    accuracy: float
    by_class: dict[str, Tensor]  # (K,) by detector
    shares: Tensor  # (triggers, K), see behaviour.measure_shares


def estimate_seconds(audited: Audited, train: Samples) -> float:
    """How long one clean model trains here, from a few batches."""
    recipe = audited.victim.task.recipe()
    rows = train.select(range(min(len(train), BATCHES * recipe.batch_size)))
    start = time.perf_counter()
    train_null(audited, rows, 0, epochs=1)
    return (time.perf_counter() - start) * recipe.epochs * len(train) / len(rows)


def train_null(audited: Audited, train: Samples, seed: int, epochs: int | None = None) -> Victim:
    """One clean model, as the task trains its victims."""
    assert audited.fresh is not None
    task, start = audited.victim.task, audited.fresh(derive(seed, "weights"))
    recipe = task.recipe() if epochs is None else replace(task.recipe(), epochs=epochs)
    return train_victim(task, train, recipe=recipe, seed=derive(seed, "order"), device=CPU, init=start)


def examine(
    null: Victim, detectors: tuple[Defense, ...], clean: Samples, held_out: Samples, plan: Plan, seed: int
) -> NullModel:
    """Everything that is asked of the user's model and needs no p value of its own."""
    logits = torch.cat([null.logits(x) for x in null.batches(held_out)])
    by_class = {d.name: inspect(d, null, clean, seed).by_class for d in detectors}
    return NullModel(share_right(logits, held_out.targets), by_class, measure_shares(null, held_out, plan, seed))
