"""Everything that shares one victim: a poisoned training set, the case that a defense gets, and the grading."""

from __future__ import annotations

import torch
from sklearn.metrics import roc_auc_score

from attacks.base import Scene
from harness.cell.case import CellCase, Fitter
from harness.cell.steps import make_challenge, make_poisoned
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.samples import Challenge


class Column:
    """One poisoned training set, everything that shares its victim, and the grading."""

    def __init__(self, folder, task, dose: int, seed: int = 0) -> None:
        attack, splits = create("attacks", "badnets"), task.load()
        self.test, self.seed, self.reserve = splits.test, seed, splits.reserve
        self.fitter = Fitter(task, Store(folder), CPU, seed)
        scene = Scene(task, splits.train, self.fitter, CPU)
        self.train = make_poisoned(attack, scene, dose, seed).train
        challenge = make_challenge(attack, scene, splits.test, seed)
        assert challenge is not None
        self.challenge: Challenge = challenge

    @property
    def case(self) -> CellCase:
        return CellCase(self.train, self.reserve, self.fitter, torch.Generator().manual_seed(self.seed))

    def accuracy(self, model) -> float:
        return (model.predict(self.test).answers == self.test.targets).float().mean().item()

    def asr(self, model) -> float:
        return (model.predict(self.challenge.inputs).answers == self.challenge.wanted).float().mean().item()

    def auroc(self, model) -> float:
        clean, stamped = (model.predict(rows).suspicion for rows in (self.test, self.challenge.inputs))
        return float(roc_auc_score([0] * len(clean) + [1] * len(stamped), torch.cat([clean, stamped])))
