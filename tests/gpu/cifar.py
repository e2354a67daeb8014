"""cifar10: the accuracy that a training of so many seconds reaches, and the seconds of an epoch of resnet18.

The goal is 94 % from all 50,000 rows within 10 s. A subset says what the same seconds reach on fewer rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from gpu.stage import Stage
from gpu.victims import make_task
from harness.cell.train import train_victim
from harness.plugins.registry import create
from tasks.base import Recipe, Task
from tasks.plugin import BadInput
from tasks.samples import Samples, Splits

EPOCHS = (4, 8, 16, 32)
USUAL = {"optimizer": "sgd", "batch_size": 128, "weight_decay": 5e-4}  # ResNet-18, 100 epochs, rate 0.1
FAST: tuple[dict[str, Any], ...] = (
    {"optimizer": "sgd", "batch_size": 512, "lr": 0.4, "weight_decay": 5e-4},
    {"optimizer": "sgd", "batch_size": 512, "lr": 0.2, "weight_decay": 5e-4},
    {"optimizer": "adamw", "batch_size": 512, "lr": 5e-3, "weight_decay": 0.05},
)


def measure(stage: Stage) -> None:
    small, big = (make_victim(name, stage.shrink) for name in ("cnn", "resnet18"))
    try:
        splits = small.load()
    except BadInput as error:
        stage.say(f"left out: {error}")
        return
    default = small.recipe()
    for epochs in (1,) if stage.shrink else (default.epochs, *EPOCHS):
        train(stage, small, splits, replace(default, epochs=epochs), "cnn, its default recipe")
    measure_epoch(stage, big, splits)
    for options in FAST[: 1 if stage.shrink else None]:
        about = f"resnet18, {options['optimizer']}, rate {options['lr']:g}, batch {options['batch_size']}"
        for epochs in (1,) if stage.shrink else EPOCHS:
            stage.need(8)
            train(stage, big, splits, replace(big.recipe(), epochs=epochs, **options), about)


def make_victim(name: str, shrink: bool) -> Task:
    """cifar10 with this victim; a dry run takes an embedded task in its place."""
    if shrink:
        small: Task = replace(make_task("digits", True), victim=name, train_size=40)  # type: ignore[call-arg]
        return small
    strength = {} if name == "cnn" else {"augmentation": "strong"}
    return create("tasks", "cifar10", {"victim": name, **strength})  # type: ignore[return-value]


def train(stage: Stage, task: Task, splits: Splits, recipe: Recipe, about: str) -> None:
    """One training, the second of its shape: its seconds, and the accuracy on the test set."""
    of = {"rows": len(splits.train), "victim": about, "epochs": recipe.epochs}
    if stage.figures.known("accuracy", **of) is not None:
        return
    warm_up(task, splits.train, recipe, stage.device)
    start = stage.clock()
    victim = train_victim(task, splits.train, recipe=recipe, seed=0, device=stage.device)
    stage.figures.add("training", stage.clock() - start, "s", **of)
    right = (victim.predict(splits.test).answers == splits.test.targets).float().mean().item()
    stage.figures.add("accuracy", 100 * right, "%", **of)


def measure_epoch(stage: Stage, task: Task, splits: Splits) -> None:
    """Seconds of an epoch of resnet18 at batch 128, and of the hundred that are usual, on these rows and on 50,000."""
    one = replace(task.recipe(), epochs=1, lr=0.1, **USUAL)  # type: ignore[arg-type]
    of = {"rows": len(splits.train), "victim": "resnet18, sgd, rate 0.1, batch 128"}
    for benchmark in (False, True):
        torch.backends.cudnn.benchmark = benchmark
        warm_up(task, splits.train, one, stage.device)
        start = stage.clock()
        train_victim(task, splits.train, recipe=one, seed=0, device=stage.device)
        seconds = stage.clock() - start
        chosen = {**of, "cudnn.benchmark": benchmark}
        stage.figures.add("an epoch", seconds, "s", **chosen)
        stage.figures.add("100 epochs of 50,000 rows", 100 * seconds * 50_000 / len(splits.train), "s", **chosen)
    torch.backends.cudnn.benchmark = False


def warm_up(task: Task, samples: Samples, recipe: Recipe, device: torch.device) -> None:
    few = samples.select(range(min(len(samples), 2 * recipe.batch_size)))
    train_victim(task, few, recipe=replace(recipe, epochs=1), seed=0, device=device)
