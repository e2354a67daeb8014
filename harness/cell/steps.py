"""The way of one cell: load, poison, defend, grade. Returns what a record needs and writes nothing but artefacts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch

from attacks.base import Attack, Scene
from attacks.targeted import TargetedAttack, find_trial
from defenses.base import Defense
from defenses.controls.none import None_
from defenses.controls.oracle import Oracle
from harness.cell import metrics
from harness.cell.case import CellCase, CellOracleCase, Findings, Fitter
from harness.cell.gallery import Made, Rows, show_outputs, show_rows
from harness.cell.metrics import Metric
from harness.cell.poison import Poisoned, canonical, check_challenge, craft, inject
from harness.cell.stealth import fidelity
from harness.errors import BrokenDefense
from harness.keys.seeds import derive
from harness.plugins.registry import fits
from harness.store.folder import Store
from tasks.base import Task, load_unsealed, sealed
from tasks.deployed import Model, Victim
from tasks.plugin import NotApplicable
from tasks.samples import Challenge, Outputs, Samples

REFEREE = 0  # seed of every judge


@dataclass
class Result:
    """What running a cell gave."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    gpu_bytes: dict[str, int] = field(default_factory=dict)
    fits: list[dict[str, Any]] = field(default_factory=list)
    artefacts: frozenset[str] = frozenset()  # keys of all that was trained for it, now or earlier
    findings: Findings = field(default_factory=Findings)
    made: dict[str, Made] = field(default_factory=dict)  # of generative tasks: triggered, plain and near
    rows: dict[str, Rows] = field(default_factory=dict)  # of the training set: clean and poisoned
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


@dataclass(frozen=True)
class Bench:
    """Where cells are run: the store, the device, and whether victims are compiled."""

    store: Store
    device: torch.device
    compiled: bool = False

    def fitter(self, task: Task, seed: int) -> Fitter:
        return Fitter(task, self.store, self.device, seed, self.compiled)

    def referee(self, task: Task) -> Victim | None:
        """The clean model that judges a generative task: trained once for all cells, kept like any other artefact."""
        return _referee(task, self)[0]


@dataclass(frozen=True)
class Threat:
    """What one attack makes of one task: shared by all defenses of a column."""

    poisoned: Poisoned
    challenge: Challenge | None
    stealth: dict[str, Metric]  # what was changed to make the poison
    surrogates: frozenset[str]  # keys of what was trained to craft it
    shown: dict[str, Rows]  # clean and poisoned rows, for people


def run(
    task: Task, attack: Attack, dose: int, defense: Defense, seed: int, store: Store, device: torch.device,
    compiled: bool = False,
) -> Result:  # fmt: skip
    """Run one cell. Raises NotApplicable, BadInput, or whatever a plug-in raises; the caller records it."""
    check_applies(task, attack, defense)
    bench = Bench(store, device, compiled)
    result = Result()
    stage = Stage(result, device)
    with stage("load"):
        splits = task.load()
        result.dataset, result.train_size = splits.train.fingerprint[:32], len(splits.train)
    with stage("poison"):
        threat = make_threat(task, attack, dose, seed, bench)
    fitter, rng = bench.fitter(task, seed), _rng(seed, "defense")
    case = CellCase(threat.poisoned.train, splits.reserve, fitter, rng)
    if type(defense) is Oracle:
        case = CellOracleCase(threat.poisoned.train, splits.reserve, fitter, rng)
        case.poisoned = threat.poisoned.mask
    before = threat.poisoned.train.fingerprint
    with stage("defend"), sealed():
        model = defend(defense, case)
    check_untouched(threat.poisoned.train, before, defense)
    result.fits, result.findings = fitter.fits, case.findings
    with stage("grade"):
        _grade(result, task, model, splits.test, threat, case.findings, bench.referee(task))
        control: frozenset[str] = frozenset()
        if threat.challenge is not None:
            result.metrics["asr_floor"], control = chance_floor(task, attack, seed, bench)
    if type(defense) is None_:  # once for a column
        result.rows = threat.shown
    result.artefacts = fitter.used | threat.surrogates | control | _referee(task, bench)[1]
    return result


@lru_cache(maxsize=2)
def make_threat(task: Task, attack: Attack, dose: int, seed: int, bench: Bench) -> Threat:
    """Craft, check and inject the poison, and make the challenge: once for all defenses of a column."""
    splits = task.load()
    trial = None
    if isinstance(attack, TargetedAttack) and attack.targeted:
        trial = find_trial(attack, task, splits, seed)
    surrogates = bench.fitter(task, derive(seed, "surrogate"))
    scene = Scene(task, splits.train, surrogates, bench.device, trial)
    with sealed():
        poisoned = poison_set(attack, scene, dose, seed)
    stealth, pairs = {}, {}
    if poisoned.mask.any():
        pairs["poisoned"] = poisoned.train.select(poisoned.mask)
        if len(poisoned.train) == len(splits.train):  # poison took the place of clean rows
            pairs["clean"] = splits.train.select(poisoned.mask)
            stealth = fidelity(task, pairs["clean"], pairs["poisoned"], splits.reserve)
    with sealed():
        challenge = make_challenge(attack, scene, splits.test, seed)
    shown = {name: found for name, samples in pairs.items() if (found := show_rows(task, samples)) is not None}
    return Threat(poisoned, challenge, stealth, surrogates.used, shown)


@lru_cache(maxsize=2)
def _referee(task: Task, bench: Bench) -> tuple[Victim | None, frozenset[str]]:
    """The judge and the artefacts behind it."""
    judge = task.referee()
    if judge is None:
        return None, frozenset()
    fit = bench.fitter(judge, REFEREE)
    return fit(load_unsealed(judge).train), fit.used


@lru_cache(maxsize=64)
def chance_floor(task: Task, attack: Attack, seed: int, bench: Bench) -> tuple[Metric, frozenset[str]]:
    """The ASR of the unpoisoned, undefended victim on the same challenge; and the artefacts behind that victim."""
    challenge = make_threat(task, attack, 0, seed, bench).challenge
    assert challenge is not None
    fit = bench.fitter(task, seed)
    clean = fit(task.load().train)
    return metrics.mean(task.judge(clean.predict(challenge.inputs), challenge, bench.referee(task))), fit.used


def defend(defense: Defense, case: CellCase) -> Model:
    """The model to deploy. Raises BrokenDefense for what is none."""
    model = defense.defend(case)
    if not callable(getattr(model, "predict", None)):
        given = "nothing" if model is None else f"a {type(model).__name__}"
        raise BrokenDefense(
            f"{defense.name}.defend returned {given}; return what case.fit returns, or another model: "
            "predict(samples) -> Outputs"
        )
    return model


def check_untouched(train: Samples, before: str, defense: Defense) -> None:
    """Cells of a process share data: raises BrokenDefense, and forgets that data, if a defense wrote on it."""
    if Samples(train.inputs, train.targets, train.ids).fingerprint != before:
        make_threat.cache_clear()
        load_unsealed.cache_clear()
        raise BrokenDefense(f"{defense.name} changed case.train in place; work on a copy (select() makes one)")


def check_applies(task: Task, attack: Attack, defense: Defense) -> None:
    """Raises NotApplicable with the plug-in's own reason."""
    for plugin in (attack, defense):
        if not fits(task.modality, plugin.modalities):
            raise NotApplicable(
                f"{plugin.name} is for {', '.join(plugin.modalities)}: {plugin.why_not or 'see its docs'}"
            )


def poison_set(attack: Attack, scene: Scene, dose: int, seed: int) -> Poisoned:
    poison = craft(attack, scene, dose, _rng(seed, "poison", attack.name))
    return inject(scene.train, poison, _rng(seed, "inject"))


def make_challenge(attack: Attack, scene: Scene, test: Samples, seed: int) -> Challenge | None:
    challenge = attack.challenge(scene, test, _rng(seed, "challenge", attack.name))
    if challenge is None:
        return None
    check_challenge(attack, challenge)
    asked: dict[str, Any] = {
        name: canonical(samples, test, scene.task, attack.name)
        for name in ("inputs", "plain", "near")
        if (samples := getattr(challenge, name)) is not None
    }
    return replace(challenge, **asked)


def _grade(
    result: Result, task: Task, model: Model, test: Samples, threat: Threat, found: Findings, referee: Victim | None
) -> None:
    poisoned, challenge = threat.poisoned.mask, threat.challenge
    clean = model.predict(task.requests(test))
    result.metrics |= metrics.grade_clean(task, clean, test, referee) | threat.stealth
    result.metrics |= metrics.grade_detection(found.train, found.flagged, poisoned)
    if challenge is not None:
        outputs = model.predict(challenge.inputs)
        result.metrics |= metrics.grade_attack(task, outputs, challenge, referee)
        result.metrics |= metrics.grade_inputs(clean, outputs)
        _keep_made(result, task, "triggered", challenge.inputs, outputs)
        for name, samples in {"plain": challenge.plain, "near": challenge.near}.items():
            if samples is not None:  # not to fire here is what makes it a backdoor
                answers = model.predict(samples)
                result.metrics[f"asr_{name}"] = metrics.mean(task.judge(answers, challenge, referee))
                _keep_made(result, task, name, samples, answers)
        of_class = isinstance(challenge.wanted, torch.Tensor) and challenge.wanted.ndim == 1
        if found.target is not None and poisoned.any() and of_class:
            result.metrics["target_found"] = metrics.mean(challenge.wanted == found.target)  # type: ignore[arg-type]
    if found.model is not None:
        result.metrics["model_suspicion"] = Metric(found.model, 1)


def _keep_made(result: Result, task: Task, name: str, requests: Samples, outputs: Outputs) -> None:
    if (shown := show_outputs(task, requests, outputs)) is not None:
        result.made[name] = shown


def _rng(seed: int, *labels: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, *labels))
