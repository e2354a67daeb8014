"""How much of a poisoned row is changed: what a person, or a check without a model, could notice."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.cell.answers import check_distances, check_measure
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
        metric = mean(check_distances(task, name, rows, len(clean)))
        if name.startswith(LOG):
            value = torch.tensor(metric.value).exp().item()
            metric = Metric(check_measure(task, f"fidelity: {name}", value), metric.n)
        metrics[name.removeprefix(LOG)] = metric
    return metrics


def text_share(train: Samples, poisoned: Tensor) -> dict[str, Metric]:
    """The share of a poisoned training set's characters that is in poisoned rows (N,) bool; {} where rows are no texts.

    A few long poisons among short texts are no few-shot attack.
    """
    if not isinstance(train.inputs, list):
        return {}
    sizes = torch.tensor([len(text) for text in train.inputs])
    return {"text_share": Metric(float(sizes[poisoned].sum() / sizes.sum().clamp(min=1)), len(train))}
