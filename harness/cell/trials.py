"""Trials of targeted attacks, drawn once and for all: only targets that clean victims get right are taken."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from attacks.targeted import Row, draw_trial
from harness.cell.case import Fitter
from harness.keys.seeds import derive
from harness.store.folder import Store
from tasks.base import Task
from tasks.plugin import BadInput

VICTIMS = 10  # clean victims that must all get a target right, or its trial might be won without poison
TRIES = 50  # draws per trial asked for


def draw_trials(task: Task, count: int, bases: int, device: torch.device) -> list[Row]:
    """`count` trials of a task with different targets: {target: test id, wanted: class, bases: training ids}."""
    splits = task.load()
    smallest = int(splits.train.targets.bincount(minlength=len(task.classes)).min())
    if bases > smallest:
        raise BadInput(f"bases={bases}: the smallest class of {task.name} has {smallest} training rows")
    with tempfile.TemporaryDirectory() as folder:
        fit = Fitter(task, Store(Path(folder)), device, 0)
        answers = [fit(splits.train, seed=derive(s, "freeze")).predict(splits.test).answers for s in range(VICTIMS)]
    right = torch.stack([a == splits.test.targets for a in answers]).all(0)
    rng = torch.Generator().manual_seed(derive(0, "freeze"))
    trials: dict[int, Row] = {}
    for _ in range(TRIES * count):
        trial = draw_trial(splits, len(task.classes), bases, rng)
        target = int(trial.target.ids)
        if right[splits.test.positions(trial.target.ids)] and target not in trials:
            trials[target] = Row(target=target, wanted=trial.wanted, bases=trial.bases.tolist())
        if len(trials) == count:
            return list(trials.values())
    raise BadInput(f"count={count}: only {len(trials)} test rows were drawn that clean victims get right")
