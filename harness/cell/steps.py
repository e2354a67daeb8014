"""The steps of one cell: load, poison, defend, grade. They return what a record needs and write only artefacts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from attacks.base import Attack, Scene, number_classes, target_class
from attacks.targeted import TargetedAttack, find_trial
from defenses.base import Defense
from defenses.controls.none import None_
from harness.cell import metrics
from harness.cell.answers import ask, judge
from harness.cell.case import CellCase, Findings, Fitter, case_for
from harness.cell.gallery import Made, Rows, show_outputs, show_rows
from harness.cell.metrics import Metric
from harness.cell.poison import Poisoned, check_challenge, conform, craft_poison, inject
from harness.cell.process import keep_process
from harness.cell.reach import reach_of_poison, reach_of_trigger
from harness.cell.retune import relearn
from harness.cell.speedup import Speedup
from harness.cell.stealth import fidelity, text_share
from harness.errors import BrokenAttack, BrokenDefense
from harness.keys.seeds import derive
from harness.plugins.registry import fits
from harness.store.folder import Store
from tasks.base import Task, load_unsealed, sealed
from tasks.caches import cached, forget
from tasks.deployed import Model, Victim
from tasks.plugin import BadInput, NotApplicable
from tasks.samples import Challenge, Outputs, Samples
from tasks.sources import held_sources

REFEREE = 0  # seed of every judge


@dataclass
class Result:
    """What a cell's record needs to know."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    gpu_bytes: dict[str, int] = field(default_factory=dict)
    fits: list[dict[str, Any]] = field(default_factory=list)
    artefacts: frozenset[str] = frozenset()  # keys of everything trained for it, now or earlier
    findings: Findings = field(default_factory=Findings)
    made: dict[str, Made] = field(default_factory=dict)  # by a generative model: triggered, plain and near
    rows: dict[str, Rows] = field(default_factory=dict)  # of the training set: clean and poisoned
    dataset: str = ""  # fingerprint of the clean training set
    train_size: int = 0
    notes: tuple[str, ...] = ()  # what was decided for the user in reading the data
    target: tuple[int, str] | None = None  # number and name of the class that the attack wants


@dataclass
class Stopwatch:
    """Writes the time and the peak GPU memory of every step into the result."""

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
    """Where cells are run: the store, the device, and what speeds victims up."""

    store: Store
    device: torch.device
    speedup: Speedup = "none"

    def fitter(self, task: Task, seed: int, cell_seed: int | None = None) -> Fitter:
        return Fitter(task, self.store, self.device, seed, self.speedup, cell_seed=cell_seed)

    def referee(self, task: Task) -> Victim | None:
        """The clean model that judges a generative task: trained once for all cells, stored like any other artefact."""
        return _train_referee(task, self)[0]


@dataclass(frozen=True)
class Threat:
    """What one attack does to one task; all defenses of a column face the same."""

    poisoned: Poisoned
    challenge: Challenge | None
    unseen: dict[str, Challenge]  # with triggers of the same family that no poison carries
    scene: Scene  # what the attacker saw
    stealth: dict[str, Metric]  # how little the poison differs from the rows that it replaced
    reach: dict[str, Metric]  # in how much of poison and challenge the victim reads a difference
    surrogates: frozenset[str]  # keys of the victims that the attacker trained
    rows: dict[str, Rows]  # clean and poisoned rows, for people to look at


def run_steps(
    task: Task, attack: Attack, dose: int, defense: Defense, seed: int, store: Store, device: torch.device,
    speedup: Speedup = "none", retune: tuple[int, ...] = (),
) -> Result:  # fmt: skip
    """Run one cell.

    retune: as in `harness.grid.grid.Grid`. Raises NotApplicable, BadInput, or whatever a plug-in raises; the caller
    records it.
    """
    check_applies(task, attack, defense)
    attack = number_classes(task, attack)
    bench = Bench(store, device, speedup)
    result = Result(target=target_class(task, attack))
    step = Stopwatch(result, device)
    with step("load"):
        splits = task.load()
        result.dataset, result.train_size = splits.train.fingerprint[:32], len(splits.train)
        result.notes = splits.notes
    with step("poison"):
        threat = make_threat(task, attack, dose, seed, bench)
    fitter = bench.fitter(task, seed)
    case = case_for(defense, threat.poisoned, splits.reserve, fitter, _rng(seed, "defense"))
    asked = {f"the {name} challenge": samples for name, samples in asked_of(threat.challenge).items()}
    asked |= {f"the {word} challenge": challenge.inputs for word, challenge in threat.unseen.items()}
    with protect(defense, {"case.train": case.train, "the test set": splits.test, **asked}):
        with step("defend"), sealed(), keep_process(defense):
            model = defend(defense, case)
        result.fits, result.findings = fitter.fits, case.findings
        with step("grade"):
            # The floor comes first: it asks the same of another model, before this one may have written on it.
            floor = None if threat.challenge is None else chance_floor(task, attack, seed, bench)
            _grade(result, task, defense, model, splits.test, threat, bench.referee(task))
        if retune and isinstance(model, Victim):
            with step("retune"):
                _grade_retuned(result, attack, model, threat, retune, fitter, bench)
    control: frozenset[str] = frozenset()
    if floor is not None:
        result.metrics["asr_floor"], control = floor
    if type(defense) is None_:  # once for a column
        result.rows = threat.rows
    result.artefacts = fitter.used | threat.surrogates | control | _train_referee(task, bench)[1]
    return result


@cached(maxsize=2)
def make_threat(task: Task, attack: Attack, dose: int, seed: int, bench: Bench) -> Threat:
    """Craft, check and inject the poison, and make the challenge: once for all defenses of a column."""
    splits = task.load()
    own, trial = attackers_rows(task, splits.train, seed), None
    if isinstance(attack, TargetedAttack) and attack.targeted:
        trial = find_trial(attack, task, replace(splits, train=own), seed)
    surrogates = bench.fitter(task, derive(seed, "surrogate"), cell_seed=seed)
    scene = Scene(task, own, surrogates, bench.device, trial)
    data = {"scene.train": own, "the test samples": splits.test}
    with protect(attack, data), sealed(), keep_process(attack):
        challenge = make_challenge(attack, scene, splits.test, seed)
        unseen = make_unseen(attack, scene, splits.test, seed)
    reach = reach_of_trigger(task, attack, challenge, splits.test, bench.device) if challenge else {}
    with protect(attack, {"scene.train": own}), sealed(), keep_process(attack):
        poisoned = make_poisoned(attack, scene, dose, seed, splits.train)
    stealth, pairs = {}, {}
    if poisoned.mask.any():
        stealth = text_share(poisoned.train, poisoned.mask)
        pairs["poisoned"] = poisoned.train.select(poisoned.mask)
        if len(poisoned.train) == len(splits.train):  # poison took the place of clean rows
            pairs["clean"] = splits.train.select(poisoned.mask)
            stealth |= fidelity(task, pairs["clean"], pairs["poisoned"], splits.reserve)
            conditions = challenge is not None and challenge.plain is not None
            reach |= reach_of_poison(
                task, attack, pairs["poisoned"], pairs["clean"], bench.device, conditions=conditions
            )
    rows = {name: shown for name, samples in pairs.items() if (shown := show_rows(task, samples)) is not None}
    return Threat(poisoned, challenge, unseen, scene, stealth, reach, surrogates.used, rows)


@cached(maxsize=2)
def _train_referee(task: Task, bench: Bench) -> tuple[Victim | None, frozenset[str]]:
    """The referee of a generative task, and the keys of the artefacts behind it."""
    judge = task.referee()
    if judge is None:
        return None, frozenset()
    fit, splits = bench.fitter(judge, REFEREE), load_unsealed(judge)
    referee = fit(splits.train)
    ask(judge, referee, splits.reserve, f"the reserve, before it judges {task.name}")  # NaN would be class 0
    return referee, fit.used


@cached(maxsize=64)
def chance_floor(task: Task, attack: Attack, seed: int, bench: Bench) -> tuple[Metric, frozenset[str]]:
    """The ASR of the unpoisoned, undefended victim on the same challenge; and the artefacts behind that victim."""
    challenge = make_threat(task, attack, 0, seed, bench).challenge
    assert challenge is not None
    fit = bench.fitter(task, seed)
    outputs = ask(task, fit(task.load().train), challenge.inputs, "the challenge, trained on clean data")
    return metrics.mean(judge(task, outputs, challenge, bench.referee(task))), fit.used


@contextmanager
def protect(plugin: Attack | Defense, parts: dict[str, Samples]) -> Iterator[None]:
    """Raises BrokenAttack or BrokenDefense at the end of the block if the plug-in wrote on these samples.

    parts: the samples by what the plug-in knows them as. The cells of a process share that data, so it is then loaded
    and poisoned anew for the next one, also where the block raised an error of its own.
    """
    before = {name: samples.fingerprint for name, samples in parts.items()}
    changed: list[str] = []
    try:
        yield
    finally:
        for name, samples in parts.items():
            if Samples(samples.inputs, samples.targets, samples.ids).fingerprint != before[name]:
                changed.append(name)
        if changed:
            forget()
    if changed:
        error = BrokenAttack if isinstance(plugin, Attack) else BrokenDefense
        raise error(f"{plugin.name} changed {changed[0]} in place; work on a copy (select() makes one)")


def asked_of(challenge: Challenge | None) -> dict[str, Samples]:
    """The requests of a challenge: triggered, and plain and near where it has them."""
    parts = {"triggered": "inputs", "plain": "plain", "near": "near"}
    asked = {name: getattr(challenge, part, None) for name, part in parts.items()}
    return {name: samples for name, samples in asked.items() if samples is not None}


def defend(defense: Defense, case: CellCase) -> Model:
    """The model to deploy. Raises BrokenDefense for something that cannot predict."""
    model = defense.defend(case)
    if not callable(getattr(model, "predict", None)):
        got = "nothing" if model is None else f"a {type(model).__name__}"
        raise BrokenDefense(
            f"{defense.name}.defend returned {got}; return what case.fit returns, or another model: "
            "predict(samples) -> Outputs"
        )
    return model


def check_applies(task: Task, attack: Attack, defense: Defense) -> None:
    """Raises NotApplicable with the plug-in's own reason."""
    for plugin in (attack, defense):
        if not fits(task.modality, plugin.modalities):
            raise NotApplicable(
                f"{plugin.name} is for {', '.join(plugin.modalities)}: {plugin.why_not or 'see its docs'}"
            )


def make_poisoned(attack: Attack, scene: Scene, dose: int, seed: int, train: Samples | None = None) -> Poisoned:
    """The training set with the attack's poison in it. train: all of it, where the attacker holds a part only."""
    poison = craft_poison(attack, scene, dose, _rng(seed, "poison", attack.name))
    if poison.replaces is None and scene.train.sources is not None:  # further rows come from the attacker's sources
        delivered = torch.randint(len(scene.train), (dose,), generator=_rng(seed, "delivered"))
        poison = replace(poison, samples=replace(poison.samples, sources=scene.train.sources[delivered]))
    return inject(scene.train if train is None else train, poison, _rng(seed, "inject"))


def attackers_rows(task: Task, train: Samples, seed: int) -> Samples:
    """The rows that an attacker sees and may poison: those of its sources, or all where nobody knows who sent them."""
    if train.sources is None:
        return train
    held = held_sources(train, task.attacker_sources, _rng(seed, "sources"))
    return train.select(torch.isin(train.sources, held))


def make_challenge(attack: Attack, scene: Scene, test: Samples, seed: int) -> Challenge | None:
    """The attack's challenge, checked; None for the control that asks for nothing."""
    challenge = attack.challenge(scene, test, _rng(seed, "challenge", attack.name))
    if challenge is None:
        return None
    check_challenge(attack, scene.task, challenge)
    requests: dict[str, Any] = {
        name: conform(samples, test, scene.task, attack.name)
        for name in ("inputs", "plain", "near")
        if (samples := getattr(challenge, name)) is not None
    }
    return replace(challenge, **requests)


def make_unseen(attack: Attack, scene: Scene, test: Samples, seed: int) -> dict[str, Challenge]:
    """The challenge of every trigger in the attack's `unseen`, by its word.

    A trigger that the options have already chosen is seen, and one that fits no input of the task is left out.
    """
    made: dict[str, Challenge] = {}
    for word, changes in attack.unseen.items():
        try:
            other: Attack = replace(attack, **changes)  # type: ignore[type-var]
            if other.options() != attack.options() and (challenge := make_challenge(other, scene, test, seed)):
                made[word] = challenge
        except (BadInput, NotApplicable):
            continue
    return made


def _grade(
    result: Result, task: Task, defense: Defense, model: Model, test: Samples, threat: Threat, referee: Victim | None
) -> None:
    """Write into the result how good the model and the defense's findings are."""
    findings, poisoned = result.findings, threat.poisoned.mask
    clean = ask(task, model, task.requests(test), "the clean test set", defense)
    result.metrics |= metrics.grade_clean(task, clean, test, referee) | threat.stealth | threat.reach
    result.metrics |= metrics.grade_detection(findings.train, findings.flagged, poisoned)
    result.metrics |= metrics.grade_sources(findings.flagged, threat.poisoned.train.sources, poisoned)
    if threat.challenge is not None:
        asked = asked_of(threat.challenge)
        answers = {n: ask(task, model, samples, f"the {n} challenge", defense) for n, samples in asked.items()}
        _grade_challenge(result, task, answers, clean, threat.challenge, referee)
        for word, challenge in threat.unseen.items():
            outputs = ask(task, model, challenge.inputs, f"the challenge with a trigger unseen ({word})", defense)
            result.metrics[f"asr_unseen_{word}"] = metrics.mean(judge(task, outputs, challenge, referee))
        classes = threat.challenge.wanted
        if findings.target is not None and poisoned.any() and isinstance(classes, Tensor) and classes.ndim == 1:
            result.metrics["target_found"] = metrics.mean(classes == findings.target)
    if findings.model is not None:
        result.metrics["model_suspicion"] = Metric(findings.model, 1)


def _grade_challenge(
    result: Result, task: Task, answers: dict[str, Outputs], clean: Outputs, challenge: Challenge,
    referee: Victim | None,
) -> None:  # fmt: skip
    """Write into the result what the challenge gets out of the model.

    answers: the outputs for each part of `asked_of`. clean: those for the clean test set.
    """
    result.metrics |= metrics.grade_attack(task, answers["triggered"], challenge, referee)
    # Requests of the same kind where there are some: what a model writes is not to be compared with what it only reads.
    result.metrics |= metrics.grade_inputs(answers.get("plain", clean), answers["triggered"])
    if "plain" in answers:
        result.metrics["plain_abstained"] = metrics.mean(answers["plain"].abstained)
    for name in ("plain", "near"):
        if name in answers:  # not to fire here is what makes it a backdoor
            result.metrics[f"asr_{name}"] = metrics.mean(judge(task, answers[name], challenge, referee))
    shown = {name: show_outputs(task, asked, answers[name]) for name, asked in asked_of(challenge).items()}
    result.made = {name: made for name, made in shown.items() if made is not None}


def _grade_retuned(
    result: Result, attack: Attack, model: Victim, threat: Threat, doses: tuple[int, ...], fitter: Fitter, bench: Bench
) -> None:
    """Write into the result the ASR of the model after its next owner has trained it on, by poisons among the rows."""
    challenge, task = threat.challenge, threat.scene.task
    if challenge is None:
        return
    rng, train = _rng(fitter.seed, "retune"), task.load().train
    for dose, victim in relearn(attack, threat.scene, train, model, doses, fitter, rng):
        outputs = ask(task, victim, challenge.inputs, f"the challenge, retuned with {dose} poisons")
        result.metrics[f"asr_retuned_{dose}"] = metrics.mean(judge(task, outputs, challenge, bench.referee(task)))


def _rng(seed: int, *labels: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, *labels))
