"""How much of a poisoned row is changed: what a person, or a check without a model, could notice."""

from __future__ import annotations

import torch

from harness.cell.metrics import Metric, mean
from tasks.base import Task
from tasks.samples import Samples

LOG = "log_"  # the beginning of the name of a metric whose geometric mean is recorded


def fidelity(task: Task, clean: Samples, poison: Samples, reference: Samples) -> dict[str, Metric]:
    """The share of labels changed and the means of `Task.fidelity`; {} without rows.

    Row i of `poison` took the place of row i of `clean`. reference: other clean rows.
    """
    if not len(clean):
        return {}
    metrics = {"labels_changed": mean(clean.targets != poison.targets)}
    for name, rows in task.fidelity(clean.inputs, poison.inputs, reference.inputs).items():
        metric = mean(rows)
        if name.startswith(LOG):
            metric = Metric(torch.tensor(metric.value).exp().item(), metric.n)
        metrics[name.removeprefix(LOG)] = metric
    return metrics
