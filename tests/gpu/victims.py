"""The victims that a campaign measures: the tasks that its data allows, in the order of their weight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from harness.plugins.modalities import examples
from harness.plugins.registry import create, entries
from harness.testing.checks import small_task
from tasks.base import Task
from tasks.plugin import BadInput
from tasks.samples import Samples

OWN_FILES = ("image_folder", "csv_text", "audio_folder")  # of a user; there is nothing to measure
SIZES: dict[str, dict[str, Any]] = {  # as in the published results; other tasks with their defaults
    "fashion_mnist": {"train_size": 2000, "test_size": 1000},
    "fsdd": {"train_size": 600},
    "sst2": {"train_size": 4000, "test_size": 1000},
    "ag_news": {"train_size": 4000, "test_size": 1000},
}
FIRST = (
    "digits", "fashion_mnist", "sst2", "fsdd", "classic_books", "digits_generator", "cifar10", "ag_news",
    "tones_synthesiser", "synthetic_tones", "synthetic_reviews", "speech_commands", "fsdd_synthesiser",
    "fashion_mnist_generator",
)  # fmt: skip


def choose_tasks(shrink: bool) -> list[str]:
    """Every task by name, the weightiest first; for a dry run embedded ones, of each kind of victim one."""
    if shrink:
        return [examples()[modality] for modality in ("image", "text", "language", "image_generation")]
    names = [name for name in entries("tasks") if name not in OWN_FILES]
    return sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))


def make_task(name: str, shrink: bool) -> Task:
    return small_task(name) if shrink else cast("Task", create("tasks", name, SIZES.get(name, {})))


def load_tasks(names: Iterable[str], shrink: bool) -> Iterator[tuple[str, Task, Samples]]:
    """Name, task and training set of those whose data is here."""
    for name in names:
        task = make_task(name, shrink)
        try:
            yield name, task, task.load().train
        except BadInput as error:
            print(f"left out: {error}", flush=True)


def classifies(task: Task) -> bool:
    """Whether CUDA graphs change anything for it: see harness.cell.train.speed_up."""
    return type(task).loss is Task.loss
