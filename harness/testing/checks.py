"""The checks of the contract kit, see harness.testing."""

from __future__ import annotations

import copy
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from attacks.base import Attack, Poison, Scene, TriggerAttack, number_classes
from attacks.targeted import TargetedAttack, draw_trial
from defenses.base import Defense
from harness.cell.answers import ask
from harness.cell.arguments import check_loss
from harness.cell.case import CellCase, Fitter, case_for
from harness.cell.metrics import grade_attack, grade_clean
from harness.cell.poison import conform, craft_poison
from harness.cell.process import keep_process
from harness.cell.reach import reach_of_trigger
from harness.cell.steps import defend, make_challenge, make_poisoned, protect
from harness.console import format_count
from harness.errors import Broken
from harness.plugins.modalities import examples
from harness.plugins.registry import create, entries, fits, load_class
from harness.store.folder import Store
from harness.testing.contract import (
    check_options,
    check_unseen,
    hash_rows,
    require,
    translate_errors,
)
from tasks.base import Batch, Task, sealed
from tasks.deployed import Model
from tasks.plugin import BadInput, NotApplicable
from tasks.samples import Challenge, Outputs, Samples
from tasks.validate import check_read, check_split, describe

CPU = torch.device("cpu")
SLOW = 30  # seconds of defending one small task, on any machine
SMALL = {  # options that make any task quick; a contract does not depend on them
    "train_size": 120, "test_size": 40, "reserve_size": 60, "epochs": 1, "body_size": 120, "body_epochs": 1,
    "base_size": 60, "base_epochs": 1, "referee_size": 120, "steps": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What a plug-in took on one small task."""

    task: str
    seconds: float
    fits: int = 0  # models trained
    clean: int = 0  # rows of the reserve drawn by a defense

    def __str__(self) -> str:
        found = f"{self.task}: {self.seconds:.1f} s"
        found += f", {format_count(self.fits, 'model')} trained" if self.fits else ""
        return found + (f", {self.clean} clean rows" if self.clean else "")


def check_attack(attack: Attack, *tasks: Task) -> list[Cost]:
    """Checks an attack or defense on these tasks, or on the example of each of its modalities. Raises Broken."""
    return _check(attack, tasks, check_attack_on)


def check_defense(defense: Defense, *tasks: Task) -> list[Cost]:
    """Checks an attack or defense on these tasks, or on the example of each of its modalities. Raises Broken.

    Warns where defending alone takes longer than SLOW seconds on so small a task.
    """
    return _check(defense, tasks, check_defense_on)


def check_task(task: Task) -> list[Cost]:
    """Checks a task, which should have small sizes: its data, its encoding and its untrained victim. Raises Broken."""
    start = time.perf_counter()
    with translate_errors(task):
        check_options(task)
        _check_splits(task)
        _check_victim(task)
    return [Cost(task.name, time.perf_counter() - start)]


def check_attack_on(attack: Attack, task: Task, store: Store) -> Cost:
    """Checks an attack on one task. Raises Broken, or NotApplicable if the attack does."""
    start = time.perf_counter()
    with translate_errors(attack, f" (on {task.name})"):
        check_options(attack)
        check_unseen(attack)
        attack = number_classes(task, attack)
        splits = task.load()
        trial = draw_trial(splits, len(task.classes), 6, rng()) if len(task.classes) > 1 else None
        fit = Fitter(task, store, CPU, 7)
        scene = Scene(task, splits.train, fit, CPU, trial)
        with sealed(), keep_process(attack):
            _check_stamp(attack, scene, splits.test)
            poison = _check_poison(attack, scene)
            _check_challenge(attack, scene, splits.test, poison)
    return Cost(task.name, time.perf_counter() - start, sum(row["trained"] for row in fit.fits))


def check_defense_on(defense: Defense, task: Task, store: Store) -> Cost:
    """Checks a defense on one task. Raises Broken, or NotApplicable if the defense does."""
    if not fits(task.modality, defense.modalities):
        raise NotApplicable(defense.why_not or f"{defense.name} is not for {task.modality}")
    if "data_sources" in defense.needs:
        task = replace(task, data_sources=4)
    with translate_errors(defense, f" (on {task.name})"):
        check_options(defense)
        name, splits = defense.name, task.load()
        stages = sorted({e.stage for e in entries("defenses").values() if not e.source})
        require(defense.stage in ("", *stages), f"{name}.stage={defense.stage!r}; valid: {', '.join(stages)}")
        reserve = splits.reserve.fingerprint
        model, case, cost = _run_defense(defense, task, store)
        if cost.seconds > SLOW:
            warnings.warn(f"{name}, {cost}: an option for less work would let others check it", stacklevel=2)
        outputs = _check_model(defense, model, task, splits.test)
        require(_fingerprint(splits.reserve) == reserve, f"{name} changed the clean rows; work on a copy")
        other, repeated, _ = _run_defense(defense, task, store)
        again = ask(task, other, splits.test, "the clean test set", defense)
        equal = torch.equal(again.scores, outputs.scores)
        require(equal, f"{name}: the same case must give the same model; draw from case.rng only")
        found, found_again = case.findings.train, repeated.findings.train
        if found is not None and found_again is not None:
            require(torch.equal(found, found_again), f"{name}: the same case must give the same report")
    return cost


def check_registered(kind: str, name: str) -> list[Cost]:
    """Checks a plug-in by its kind and name, with its default options. Raises Broken."""
    try:
        plugin = small_task(name) if kind == "tasks" else create(kind, name)
    except (BadInput, TypeError) as error:
        raise Broken(str(error)) from error
    if isinstance(plugin, Task):
        return check_task(plugin)
    if isinstance(plugin, Attack):
        return check_attack(plugin)
    assert isinstance(plugin, Defense)
    return check_defense(plugin)


@cache
def small_task(name: str) -> Task:
    """A registered task with so few rows and epochs that checks take seconds."""
    known = {f.name for f in fields(load_class("tasks", name))}  # type: ignore[arg-type]
    task = create("tasks", name, {k: v for k, v in SMALL.items() if k in known})
    assert isinstance(task, Task)
    return task


def plain_attack(task: Task) -> Attack:
    """The attack under which defenses are checked on a task. Raises NotApplicable where its modality names none."""
    if not task.plain_attack:
        raise NotApplicable(f"{task.name} names no `plain_attack`, and a defense is checked under one")
    attack = create("attacks", task.plain_attack)
    assert isinstance(attack, Attack)
    return attack


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _check(plugin: Attack | Defense, tasks: tuple[Task, ...], check: Callable[..., Cost]) -> list[Cost]:
    known = examples()
    names = [name for modality, name in known.items() if fits(modality, plugin.modalities)]
    chosen = tasks or tuple(small_task(name) for name in (*names, *_own_tasks(plugin)))
    require(
        bool(chosen),
        f"{plugin.name}: modalities={plugin.modalities} fits no embedded task; hand one over, or name "
        f"what it is for: any, {', '.join(known)}",
    )
    costs, reasons = [], []
    with tempfile.TemporaryDirectory() as folder:
        for task in chosen:
            try:
                costs.append(check(plugin, task, Store(Path(folder))))
            except NotApplicable as reason:
                reasons.append(f"{task.name}: {reason}")
    require(bool(costs), f"{plugin.name} applies to none of the tasks ({'; '.join(reasons)})")
    return costs


def _own_tasks(plugin: Attack | Defense) -> list[str]:
    """The embedded tasks, besides the examples of modalities, that name this attack as their plain one."""
    tasks: dict[str, Any] = {name: load_class("tasks", name) for name in entries("tasks")}
    examples_too = {cls.example for cls in tasks.values()}
    return [
        name
        for name, cls in tasks.items()
        if cls.plain_attack == plugin.name and cls.dataset == "embedded" and name not in examples_too
    ]


def _check_splits(task: Task) -> None:
    """`read` must give sound data, and the same every time."""
    name, (train, test), splits = task.name, check_read(task, task.read()), task.load()
    for field in ("modality", "dataset", "licence"):
        require(bool(getattr(task, field)), f"{name}: name its {field} (a ClassVar)")
    for part in ("train", "reserve", "test"):
        samples: Samples = getattr(splits, part)
        check_split(task, part, samples)
        read = test if part == "test" else train
        same = _same(read.select(read.positions(samples.ids)), samples)
        require(same, f"{name}.read gives other rows every time; seed what is drawn in it")
    known = {*hash_rows(splits.train), *hash_rows(splits.reserve)}
    leaked = sum(row in known for row in hash_rows(splits.test))
    require(leaked <= len(splits.test) // 2, f"{name}.read: {leaked} of {len(splits.test)} test rows are training rows")


def _check_victim(task: Task) -> None:
    """The untrained victim must have a finite loss and answer every request."""
    name, splits = task.name, task.load()
    few = splits.train.select(range(min(8, len(splits.train))))
    require(len(task.encode(few, CPU)) == len(few), f"{name}.encode: one row for each sample")
    torch.manual_seed(0)
    module = task.model().eval()
    x, y = task.rows(few, CPU)
    batch = Batch(x, y, torch.arange(len(x)), torch.Generator().manual_seed(0), 0.0)
    loss = check_loss(task.loss(module, batch), len(x), task.loss)
    require(bool(torch.isfinite(loss).all()), f"{name}.loss: not finite on an untrained victim")
    outputs = ask(task, task.deploy(module, CPU), task.requests(splits.test), "the clean test set")
    if task.referee() is None and len(task.classes) > 1:
        grade_clean(task, outputs, splits.test)
        truth = splits.test.targets
        grade_attack(task, outputs, Challenge(splits.test, (truth + 1) % len(task.classes), truth))


def _check_poison(attack: Attack, scene: Scene) -> Poison:
    """Checks doses 0, 2 and 5, and returns the poison of the largest."""
    name, before = attack.name, _copy(scene.train)
    doses = (0,) if name == "none" else (0, 2, 5)
    poisons = [craft_poison(attack, scene, dose, rng()) for dose in doses]
    for dose, poison in zip(doses, poisons, strict=True):
        same = _same(craft_poison(attack, scene, dose, rng()).samples, poison.samples)
        require(same, f"{name}.poison: the same rng must give the same poison; draw from the rng handed over only")
    small, large = (poisons[0], *poisons)[-2:]
    nested = _same(large.samples.select(range(len(small.samples))), small.samples)
    require(nested, f"{name}.poison: doses must be nested, the first poisons of a dose being those of a smaller one")
    require(_same(scene.train, before), f"{name}.poison changed scene.train; work on a copy (select() makes one)")
    if name != "none":
        _check_refusal(attack, scene)
    return large


def _check_refusal(attack: Attack, scene: Scene) -> None:
    try:
        attack.poison(scene, 100_000, rng())
    except BadInput as error:
        require("dose=100000" in str(error) and "rows" in str(error),
             f"{attack.name}.poison: name the dose and the rows there are in the BadInput ({error})")  # fmt: skip
        return
    raise Broken(f"{attack.name}.poison: raise BadInput where the dose is larger than the rows that may be poisoned")


def _check_stamp(attack: Attack, scene: Scene, test: Samples) -> None:
    if isinstance(attack, TriggerAttack):
        few = test.select(range(min(4, len(test))))
        kept = _copy(few)
        stamped = attack.stamp(scene, few.inputs, rng())
        alike = type(stamped) is type(kept.inputs) and len(stamped) == len(kept)
        require(
            alike,
            f"{attack.name}.stamp: {len(kept)} inputs gave {describe(stamped)}; return as many, of their type",
        )
        require(_same(few, kept), f"{attack.name}.stamp changed the inputs it was given; work on a copy")


def _check_challenge(attack: Attack, scene: Scene, test: Samples, poison: Poison) -> None:
    name, untouched = attack.name, _copy(test)
    challenge = make_challenge(attack, scene, test, 0)
    if challenge is None:
        require(name == "none", f"{name}.challenge: only the control `none` asks for nothing")
        return
    require(_same(test, untouched), f"{name}.challenge changed the test samples; work on a copy")
    reach_of_trigger(scene.task, attack, challenge, test, CPU)
    asked = challenge.inputs
    if isinstance(attack, TargetedAttack):
        trial = scene.trial
        assert trial is not None
        require(_same(asked, trial.target), f"{name}: the challenge of a targeted attack is the target, as it is")
        wanted = poison.samples.targets.tolist() == [trial.wanted] * len(poison.samples)
        require(wanted, f"{name}: the poisons of a targeted attack carry the class wanted")
        return
    again = make_challenge(attack, scene, test, 0)
    equal = again is not None and again.inputs.fingerprint == asked.fingerprint
    require(equal, f"{name}.challenge: the same rng must give the same inputs")
    plain = conform(asked, test, scene.task, name).fingerprint == asked.fingerprint
    require(plain, f"{name}.challenge: inputs must lie on the values that clean data takes")
    if challenge.truth is None:
        parts = [part for part in (asked, challenge.plain, challenge.near) if part is not None]
        require(len(parts) == 3, f"{name}.challenge: give `plain` (no trigger) and `near` (a similar one)")


def _check_model(defense: Defense, model: Model, task: Task, test: Samples) -> Outputs:
    """Answers must be those that a run accepts, and the same when asked for again."""
    with protect(defense, {"the test set": test}):
        outputs, again = (ask(task, model, test, "the clean test set", defense) for _ in range(2))
    equal = torch.equal(outputs.scores, again.scores) and torch.equal(outputs.abstained, again.abstained)
    require(equal, f"{defense.name}: the same question must get the same answer; seed what is drawn in predict")
    return outputs


def _run_defense(defense: Defense, task: Task, store: Store) -> tuple[Model, CellCase, Cost]:
    splits, attack = task.load(), plain_attack(task)
    poisoned = make_poisoned(attack, Scene(task, splits.train, Fitter(task, store, CPU, 7), CPU), 5, 0)
    fit = Fitter(task, store, CPU, 0)
    case, start = case_for(defense, poisoned, splits.reserve, fit, rng()), time.perf_counter()
    with protect(defense, {"case.train": case.train}), sealed(), keep_process(defense):
        model = defend(defense, case)
    trained = sum(row["trained"] for row in fit.fits)
    return model, case, Cost(task.name, time.perf_counter() - start, trained, case.findings.clean_used)


def _fingerprint(samples: Samples) -> str:
    """Computed anew, as Samples remember theirs."""
    return Samples(samples.inputs, samples.targets, samples.ids).fingerprint


def _copy(samples: Samples) -> Samples:
    return Samples(copy.deepcopy(samples.inputs), samples.targets.clone(), samples.ids.clone())


def _same(a: Samples, b: Samples) -> bool:
    return _fingerprint(a) == _fingerprint(b) and torch.equal(a.ids, b.ids)
