"""Freezing trials for targeted attacks: draw them once, keep those that a clean victim gets right, write them down."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from attacks.targeted import Row, draw
from harness.cell.case import Fitter
from harness.keys.seeds import derive
from harness.store.folder import Store
from tasks.base import Task
from tasks.plugin import BadInput

VICTIMS = 10  # clean victims that must all read a target right, or its trial might be won without poison
TRIES = 50  # draws per trial wanted


def freeze(task: Task, count: int, bases: int, device: torch.device) -> list[Row]:
    """So many trials of a task, each {target: test id, wanted: class, bases: training ids}; different targets."""
    splits = task.load()
    smallest = int(splits.train.targets.bincount(minlength=len(task.classes)).min())
    if bases > smallest:
        raise BadInput(f"bases={bases}: the smallest class of {task.name} has {smallest} training rows")
    with tempfile.TemporaryDirectory() as folder:
        fit = Fitter(task, Store(Path(folder)), device, 0)
        answers = [fit(splits.train, seed=derive(s, "freeze")).predict(splits.test).answers for s in range(VICTIMS)]
    right = torch.stack([a == splits.test.targets for a in answers]).all(0)
    rng = torch.Generator().manual_seed(derive(0, "freeze"))
    found: dict[int, Row] = {}
    for _ in range(TRIES * count):
        trial = draw(splits, len(task.classes), bases, rng)
        target = int(trial.target.ids)
        if right[splits.test.positions(trial.target.ids)] and target not in found:
            found[target] = Row(target=target, wanted=trial.wanted, bases=trial.bases.tolist())
        if len(found) == count:
            return list(found.values())
    raise BadInput(f"count={count}: only {len(found)} test rows were drawn that clean victims read right")
