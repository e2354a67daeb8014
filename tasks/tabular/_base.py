"""Shared by all tabular tasks: one row of numbers per sample, and the choice of victim."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tasks._models.linear import MLP, Linear
from tasks._models.trees import Trees
from tasks.base import Batch, Recipe, Task
from tasks.deployed import Victim
from tasks.plugin import Positive, options
from tasks.samples import Outputs, Samples


@options
class TabularTask(Task):
    """Tables as float32 (N, D): numbers scaled to [0, 1], categories one-hot. The victim reads them as they are.

    Classes may be rare: rows count by the inverse frequency of their class (`frequencies`), and utility is balanced
    accuracy, the mean of the classes' accuracies. "linear" is the victim of the theory of a single poison, "trees" are
    gradient-boosted ones, the usual strong model of a table.
    """

    modality: ClassVar[str] = "tabular"
    medium: ClassVar[str] = "tabular"
    raw_format: ClassVar[str] = "float32 (N, D)"
    plain_attack: ClassVar[str] = "one_poison"
    hue: ClassVar[str] = "#CC79A7"
    clean_metric: ClassVar[str] = "balanced accuracy"
    frequencies: ClassVar[tuple[float, ...]] = ()  # of the classes, as published; a constant, so that no fit sees data

    victim: Literal["linear", "mlp", "trees"] = "linear"
    width: Positive = 32  # hidden units of the mlp
    rounds: Positive = 60  # of boosting
    depth: Annotated[int, Field(ge=1, le=6)] = 2  # of every tree

    def is_raw(self, inputs: Tensor | list[str]) -> bool:
        return isinstance(inputs, Tensor) and inputs.dtype == torch.float32 and inputs.ndim == 2

    def model(self) -> nn.Module:

        features = self.features()
        k = len(self.classes)
        if self.victim == "trees":
            return Trees(features, self.class_weights(), self.rounds, self.depth)
        return Linear(features, k) if self.victim == "linear" else MLP(features, k, self.width)

    def recipe(self) -> Recipe:
        """Of trees, defenses that train on change the head alone."""
        recipe = super().recipe()
        return replace(recipe, frozen="body", augment=False) if self.victim == "trees" else recipe

    def class_weights(self) -> list[float]:
        """The factor by which the rows of each class count; the mean over training rows is 1."""
        return [1 / (len(self.frequencies) * frequency) for frequency in self.frequencies]

    def features(self) -> int:
        """The number of columns (D)."""
        raise NotImplementedError(f"{type(self).__name__} must define features()")

    def encode(self, samples: Samples, device: torch.device) -> Tensor:
        return samples.inputs.to(device)  # type: ignore[union-attr]

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        weight = batch.x.new_tensor(self.class_weights())
        return F.cross_entropy(module(batch.x).float(), batch.y, weight=weight, reduction="none")

    def utility(self, outputs: Outputs, test: Samples, referee: Victim | None = None) -> float:
        """Balanced accuracy; an abstention is an error."""
        correct = outputs.answers == test.targets
        classes = sorted(set(test.targets.tolist()))
        return torch.stack([correct[test.targets == c].float().mean() for c in classes]).mean().item()
