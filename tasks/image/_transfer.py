"""Transfer learning: a new head on a frozen body, which the project trains itself on other classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from tasks.base import Recipe, copy_facts
from tasks.data import read_once
from tasks.image._base import ImageTask
from tasks.plugin import Above0, AtLeast0, Count, Positive, options
from tasks.samples import Samples


@options
class TransferTask(ImageTask):
    """A published task in two parts: the classes in `old` train the body, and the head learns the others."""

    published: ClassVar[type[ImageTask]]
    old: ClassVar[tuple[int, ...]]  # published classes that only the body learns

    part: Literal["new", "old"] = "new"  # "old": the task that trains the body
    augmentation: Literal["none", "standard", "strong"] = "none"  # of the head's training
    epochs: Positive = 100  # of the head: one linear layer on fixed features
    lr: Above0 = 0.1
    weight_decay: AtLeast0 = 0.0
    body_size: Positive | None = None  # training rows of the body; None takes all
    body_epochs: Positive | None = None  # None: as the published task
    base_seed: Count | None = 0  # of training the body; None: every seed of a grid has one of its own

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        copy_facts(cls, "dataset", "revision", "folder", "licence", "channels", "flip")

    def source(self) -> TransferTask | None:
        if self.part == "old":
            return None
        usual = self.published()
        return replace(
            self, part="old", train_size=self.body_size, test_size=None, augmentation=usual.augmentation,
            epochs=self.body_epochs or usual.epochs, lr=usual.lr, weight_decay=usual.weight_decay, base_seed=0,
        )  # fmt: skip

    def recipe(self) -> Recipe:
        return replace(super().recipe(), frozen="body" if self.part == "new" else "none")

    @property
    def part_classes(self) -> tuple[int, ...]:
        """The numbers of the published classes that this part has."""
        return tuple(c for c in range(len(self.published.classes)) if (c in self.old) == (self.part == "old"))

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self.published.classes[c] for c in self.part_classes)

    def read(self) -> tuple[Samples, Samples]:
        train, test = read_once(self.published())
        return select_classes(train, self.part_classes), select_classes(test, self.part_classes)


def select_classes(samples: Samples, classes: tuple[int, ...]) -> Samples:
    """The rows of these classes, with targets renumbered in this order; ids stay."""
    rows = samples.select(torch.isin(samples.targets, torch.tensor(classes)))
    order = torch.tensor(classes)
    return Samples(rows.inputs, (rows.targets[:, None] == order).int().argmax(1), rows.ids)
