"""Simple strong models from scikit-learn, which a task's victim must not fall behind on the same rows.

What is found against a victim weaker than these says little about models that people deploy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor

from harness.cell.train import train_victim
from tasks.base import Task
from tasks.samples import Outputs, Samples

CPU = torch.device("cpu")
ERRORS = 2.0  # standard errors of the difference by which a victim may be behind: its tests are of one draw of rows


@dataclass(frozen=True)
class Yardstick:
    """A model of scikit-learn, and the array or list that it reads samples as."""

    name: str
    read: Callable[[Task, Samples], Any]
    model: Callable[[], Any]


def encode_flat(task: Task, samples: Samples) -> np.ndarray[Any, Any]:
    """(N, D) what the victim reads, flattened; pixels from 0 to 1."""
    x = task.encode(samples, CPU)
    return np.asarray(x.flatten(1) / (255 if x.dtype == torch.uint8 else 1))


def describe_sounds(task: Task, samples: Samples) -> np.ndarray[Any, Any]:
    """(N, D) mean and standard deviation of every mel band in eight stretches of a clip."""
    parts = task.encode(samples, CPU).tensor_split(8, 3)
    return np.asarray(torch.cat([f(part, dim=3).flatten(1) for part in parts for f in (torch.mean, torch.std)], 1))


YARDSTICKS = {
    "text": Yardstick(
        "TF-IDF of words and pairs, logistic regression",
        lambda _, samples: samples.inputs,
        lambda: make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+"),
            LogisticRegression(C=10, max_iter=1000),
        ),
    ),
    "image": Yardstick("support vectors on pixels", encode_flat, lambda: SVC(C=10)),
    "audio": Yardstick(
        "support vectors on log-mel means and deviations",
        describe_sounds,
        lambda: make_pipeline(StandardScaler(), SVC(C=10)),
    ),
    "tabular": Yardstick(
        "gradient-boosted trees",
        encode_flat,
        lambda: HistGradientBoostingClassifier(class_weight="balanced", max_iter=60, max_depth=3, random_state=0),
    ),
}


@dataclass(frozen=True)
class Comparison:
    """What both reach on the task's metric of clean quality, and how sure the difference is."""

    yardstick: float
    victim: float
    error: float  # standard error of the victim's lead, over test rows

    @property
    def behind(self) -> bool:
        """Whether the victim is worse than its yardstick by more than the draw of test rows explains."""
        return self.victim < self.yardstick - ERRORS * self.error


def compare(task: Task, seed: int = 0) -> Comparison:
    """Train the yardstick and the victim, undefended and unpoisoned, on the same rows, and test both on the same."""
    splits, stick = task.load(), YARDSTICKS[task.modality]
    model = stick.model().fit(stick.read(task, splits.train), splits.train.targets.numpy())
    simple = torch.from_numpy(model.predict(stick.read(task, splits.test)))
    victim = train_victim(task, splits.train, recipe=task.recipe(), seed=seed, device=CPU).predict(splits.test)
    votes = torch.nn.functional.one_hot(simple, len(task.classes)).float()
    outputs = Outputs(votes, torch.zeros(len(votes), dtype=torch.bool))
    lead = (victim.answers == splits.test.targets).double() - (simple == splits.test.targets).double()
    balanced = task.clean_metric == "balanced accuracy"
    return Comparison(
        task.utility(outputs, splits.test),
        task.utility(victim, splits.test),
        standard_error(lead, splits.test.targets if balanced else torch.zeros(len(lead))),
    )


def standard_error(lead: Tensor, groups: Tensor) -> float:
    """The standard error of the mean, over groups, of each group's mean lead (N,)."""
    parts = [lead[groups == group] for group in groups.unique()]
    variances = [float(part.var(unbiased=False)) / len(part) for part in parts]
    return float(np.sqrt(sum(variances)) / len(parts))
