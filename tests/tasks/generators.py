"""Small diffusion tasks and untrained victims, shared by tests of generation."""

from __future__ import annotations

import torch

from harness.plugins.registry import create
from harness.testing.checks import CPU
from tasks.diffusion import DiffusionTask, DiffusionVictim

SMALL = {
    "train_size": 120, "test_size": 40, "reserve_size": 20, "epochs": 1, "base_size": 60, "base_epochs": 1,
    "referee_size": 200, "steps": 2, "width": 8,
}  # fmt: skip
TASKS = ["digits_generator", "tones_synthesiser"]


def small(name: str, **changes: object) -> DiffusionTask:
    task = create("tasks", name, {**SMALL, **changes})
    assert isinstance(task, DiffusionTask)
    return task


def untrained(task: DiffusionTask) -> DiffusionVictim:
    torch.manual_seed(0)
    victim = task.deploy(task.model().eval(), CPU)
    assert isinstance(victim, DiffusionVictim)
    return victim
