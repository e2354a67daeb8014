"""The way of one cell: load, poison, defend, grade. Returns what a record needs and writes nothing but artefacts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from attacks.base import Attack, Scene
from defenses.base import Defense
from defenses.controls.oracle import Oracle
from harness import metrics
from harness.case import CellCase, CellOracleCase, Findings, Fitter
from harness.content import derive
from harness.metrics import Metric
from harness.poison import Poisoned, canonical, check_challenge, craft, inject
from harness.store import Store
from tasks.base import Challenge, NotApplicable, Task, sealed
from tasks.deployed import Model


@dataclass
class Result:
    """What running a cell gave."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    gpu_bytes: dict[str, int] = field(default_factory=dict)
    fits: list[dict[str, Any]] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    dataset: str = ""  # fingerprint of the clean training set
    train_size: int = 0


@dataclass
class Stage:
    """Time, and peak GPU memory, of the parts of a cell."""

    result: Result
    device: torch.device

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.result.seconds[name] = time.perf_counter() - start
            if self.device.type == "cuda":
                self.result.gpu_bytes[name] = torch.cuda.max_memory_allocated(self.device)


def run(
    task: Task, attack: Attack, dose: int, defense: Defense, seed: int, store: Store, device: torch.device,
    compiled: bool = False,
) -> Result:  # fmt: skip
    """Run one cell. Raises NotApplicable, BadInput, or whatever a plug-in raises; the caller records it."""
    check_applies(task, attack, defense)
    result = Result()
    stage = Stage(result, device)
    with stage("load"):
        splits = task.load()
        result.dataset, result.train_size = splits.train.fingerprint[:32], len(splits.train)
    with stage("poison"):
        scene = Scene(task, splits.train, Fitter(task, store, device, derive(seed, "surrogate"), compiled), device)
        poisoned = poison_set(attack, scene, dose, seed)
    fitter = Fitter(task, store, device, seed, compiled)
    case = CellCase(poisoned.train, splits.reserve, fitter, _rng(seed, "defense"))
    if type(defense) is Oracle:
        case = CellOracleCase(poisoned.train, splits.reserve, fitter, _rng(seed, "defense"))
        case.poisoned = poisoned.mask
    with stage("defend"), sealed():
        model = defense.defend(case)
    result.fits, result.findings = fitter.fits, case.findings
    with stage("grade"):
        challenge = make_challenge(attack, scene, splits.test, seed)
        _grade(result, task, model, splits.test, challenge, poisoned, case.findings)
        if challenge is not None:  # the chance floor: what an unpoisoned, undefended victim answers to the same inputs
            clean = Fitter(task, store, device, seed, compiled)(splits.train)
            result.metrics["asr_floor"] = metrics.grade_attack(task, clean.predict(challenge.inputs), challenge)["asr"]
    return result


def check_applies(task: Task, attack: Attack, defense: Defense) -> None:
    """Raises NotApplicable with the plug-in's own reason."""
    for plugin in (attack, defense):
        if task.modality not in plugin.modalities:
            raise NotApplicable(
                f"{plugin.name} is for {', '.join(plugin.modalities)}: {plugin.why_not or 'see its docs'}"
            )


def poison_set(attack: Attack, scene: Scene, dose: int, seed: int) -> Poisoned:
    poison = craft(attack, scene, dose, _rng(seed, "poison", attack.name))
    return inject(scene.train, poison, _rng(seed, "inject"))


def make_challenge(attack: Attack, scene: Scene, test: Any, seed: int) -> Challenge | None:
    challenge = attack.challenge(scene, test, _rng(seed, "challenge", attack.name))
    if challenge is None:
        return None
    check_challenge(attack, challenge)
    return Challenge(canonical(challenge.inputs, test, attack.name), challenge.wanted, challenge.truth)


def _grade(
    result: Result,
    task: Task,
    model: Model,
    test: Any,
    challenge: Challenge | None,
    poisoned: Poisoned,
    found: Findings,
) -> None:
    clean = model.predict(test)
    result.metrics |= metrics.grade_clean(task, clean, test)
    result.metrics |= metrics.grade_detection(found.train, found.flagged, poisoned.mask)
    if challenge is not None:
        outputs = model.predict(challenge.inputs)
        result.metrics |= metrics.grade_attack(task, outputs, challenge)
        result.metrics |= metrics.grade_inputs(clean, outputs)
        if found.target is not None and poisoned.mask.any():
            result.metrics["target_found"] = metrics.mean(challenge.wanted == found.target)
    if found.model is not None:
        result.metrics["model_suspicion"] = Metric(found.model, 1)


def _rng(seed: int, *labels: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, *labels))
