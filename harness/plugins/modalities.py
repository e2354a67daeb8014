"""Modalities by name, each as a task class of it describes it (tasks.modality)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from harness.plugins.registry import entries, load_class

if TYPE_CHECKING:
    from tasks.modality import Modality


def find_modality(name: str) -> type[Modality]:
    """What is known of a modality; the defaults where no known task is of it."""
    from tasks.modality import Modality  # imported late: it imports torch

    task = _tasks_by_modality().get(name)
    return cast("type[Modality]", load_class("tasks", task)) if task else Modality


def examples() -> dict[str, str]:
    """The embedded task of each modality that has one: plug-ins for that modality are checked on it."""
    return {name: task for name in _tasks_by_modality() if (task := find_modality(name).example)}


def _tasks_by_modality() -> dict[str, str]:
    """The name of a task of each modality: this project's own before those of others, as these may fail to import."""
    tasks: dict[str, str] = {}
    for entry in sorted(entries("tasks").values(), key=lambda entry: bool(entry.source)):
        tasks.setdefault(entry.modalities[0], entry.name)
    return tasks
