"""The contract kit: does a plug-in keep what its base class promises? Seconds on a CPU; a breach says what to change.

from harness.testing import check_defense
def test_my_defense() -> None:
    check_defense(MyDefense(share=0.1))
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from attacks.base import Attack, Poison, Scene, TriggerAttack
from attacks.targeted import TargetedAttack, draw
from defenses.base import Defense
from harness.bytecode import lives_here
from harness.case import CellCase, CellOracleCase, Fitter
from harness.cell import make_challenge, poison_set
from harness.given import called
from harness.poison import canonical, craft
from harness.registry import create, fits, load_class
from harness.store import Store
from tasks.base import BadInput, Batch, Challenge, NotApplicable, Plugin, Samples, Task, sealed, take
from tasks.deployed import Model

CPU = torch.device("cpu")
EMBEDDED = {  # a task of each modality that needs no download
    "image": "digits", "text": "synthetic_reviews", "audio": "synthetic_tones", "language": "synthetic_stories",
    "image_generation": "digits_generator", "audio_generation": "tones_synthesiser",
}  # fmt: skip
ATTACK = {  # and a plain attack on it
    "image": "badnets", "text": "badwords", "audio": "tone_clip", "language": "gibberish",
    "image_generation": "conditional_trigger", "audio_generation": "conditional_trigger",
}  # fmt: skip
SMALL = {  # options that make any task quick; a contract does not depend on them
    "train_size": 120, "test_size": 40, "reserve_size": 60, "epochs": 1, "body_size": 120, "body_epochs": 1,
    "base_size": 60, "base_epochs": 1, "referee_size": 120, "steps": 2,
}  # fmt: skip


class Broken(AssertionError):
    """A plug-in breaks its contract: what is wrong and what to change."""


def check_attack(attack: Attack, *tasks: Task) -> None:
    """On these tasks, or on an embedded one of every modality it is for. Raises Broken."""
    _check(attack, tasks, check_attack_on)


def check_defense(defense: Defense, *tasks: Task) -> None:
    """On these tasks, or on an embedded one of every modality it is for. Raises Broken."""
    _check(defense, tasks, check_defense_on)


def check_task(task: Task) -> None:
    """Give it small sizes: it is loaded, encoded, and its untrained victim answers. Raises Broken."""
    check_options(task)
    for name in ("modality", "dataset", "licence"):
        _need(bool(getattr(task, name)), f"{task.name}: name its {name} (a ClassVar)")
    splits = task.load()
    parts = {"train": splits.train, "test": splits.test, "reserve": splits.reserve}
    for ids in (torch.cat([splits.train.ids, splits.reserve.ids]), splits.test.ids):
        _need(len(ids) == len(set(ids.tolist())), f"{task.name}.read: every row of a split needs an id of its own")
    for name, part in parts.items():
        _need(len(part) > 0, f"{task.name}: the {name} split is empty")
        fine = bool(((part.targets >= 0) & (part.targets < task.conditions)).all())
        _need(fine, f"{task.name}.read: a label of {name} is not in 0 to {task.conditions - 1}, as `classes` says")
    few = splits.train.select(range(min(8, len(splits.train))))
    _need(len(task.encode(few, CPU)) == len(few), f"{task.name}.encode: one row for each sample")
    torch.manual_seed(0)
    module = task.model().eval()
    x, y = task.rows(few, CPU)
    batch = Batch(x, y, torch.arange(len(x)), torch.Generator().manual_seed(0), 0.0)
    _need(bool(torch.isfinite(task.loss(module, batch)).all()), f"{task.name}.loss: not finite on an untrained victim")
    outputs = task.deploy(module, CPU).predict(task.requests(splits.test))
    _need(len(outputs.abstained) == len(splits.test), f"{task.name}: a victim must answer every request")


def check_options(plugin: Plugin) -> None:
    """Options round-trip and plug-ins can be hashed, or nothing could be kept under a key."""
    if lives_here(type(plugin)):
        called(type(plugin))
    again = type(plugin)(**plugin.options())
    _need(again == plugin and hash(again) == hash(plugin), f"{plugin.name}: decorate the class with @options")


def check_attack_on(attack: Attack, task: Task, store: Store) -> None:
    """One attack on one task. Raises Broken, or NotApplicable where the attack says so."""
    check_options(attack)
    name, splits = attack.name, task.load()
    trial = draw(splits, len(task.classes), 6, rng()) if len(task.classes) > 1 else None
    scene = Scene(task, splits.train, Fitter(task, store, CPU, 7), CPU, trial)
    before = _copy(scene.train)
    doses = (0,) if name == "none" else (0, 2, 5)
    poisons = [craft(attack, scene, dose, rng()) for dose in doses]
    for dose, poison in zip(doses, poisons, strict=True):
        _need(len(poison.samples) == dose, f"{name}.poison: asked for {dose} samples, gave {len(poison.samples)}")
        same = _same(craft(attack, scene, dose, rng()).samples, poison.samples)
        _need(same, f"{name}.poison: the same rng must give the same poison; draw from the rng handed over only")
    small, large = poisons[-2:] if len(poisons) > 1 else (poisons[0], poisons[0])
    nested = _same(large.samples.select(range(len(small.samples))), small.samples)
    _need(nested, f"{name}.poison: doses must be nested, the first poisons of a dose being those of a smaller one")
    _check_labels(attack, scene, large)
    _need(_same(scene.train, before), f"{name}.poison changed scene.train; work on a copy (select() makes one)")
    if name != "none":
        _check_refusal(attack, scene)
    if isinstance(attack, TriggerAttack):
        few = splits.test.select(range(min(4, len(splits.test))))
        kept = _copy(few)
        attack.stamp(scene, few.inputs, rng())
        _need(_same(few, kept), f"{name}.stamp changed the inputs it was given; work on a copy")
    untouched = _copy(splits.test)
    challenge = make_challenge(attack, scene, splits.test, 0)
    if challenge is None:
        _need(name == "none", f"{name}.challenge: only the control `none` asks for nothing")
        return
    _check_challenge(attack, scene, challenge, large, splits.test)
    _need(_same(splits.test, untouched), f"{name}.challenge changed the test samples; work on a copy")


def check_defense_on(defense: Defense, task: Task, store: Store) -> None:
    """One defense on one task. Raises Broken, or NotApplicable where the defense says so."""
    if not fits(task.modality, defense.modalities):
        raise NotApplicable(defense.why_not or f"{defense.name} is not for {task.modality}")
    check_options(defense)
    name, splits = defense.name, task.load()
    reserve = splits.reserve.fingerprint
    model, case, before = _defended(defense, task, store)
    train = Samples(case.train.inputs, case.train.targets, case.train.ids)
    _need(train.fingerprint == before, f"{name} changed case.train in place; work on a copy (select() makes one)")
    outputs, again = model.predict(splits.test), model.predict(splits.test)
    n = len(splits.test)
    if outputs.content is None:
        right = outputs.scores.shape == (n, len(task.classes))
        _need(right, f"{name}: scores are {tuple(outputs.scores.shape)}, expected ({n}, {len(task.classes)})")
    fine = outputs.scores.dtype == torch.float32 and bool(torch.isfinite(outputs.scores).all())
    _need(fine, f"{name}: scores must be finite float32")
    _need(outputs.abstained.shape == (n,), f"{name}: abstained must say of every input whether the model abstains")
    equal = torch.equal(outputs.scores, again.scores) and torch.equal(outputs.abstained, again.abstained)
    _need(equal, f"{name}: the same question must get the same answer; seed what is drawn in predict")
    clean = Samples(splits.reserve.inputs, splits.reserve.targets, splits.reserve.ids)
    _need(clean.fingerprint == reserve, f"{name} changed the clean rows; work on a copy")
    other, repeated, _ = _defended(defense, task, store)
    equal = torch.equal(other.predict(splits.test).scores, outputs.scores)
    _need(equal, f"{name}: the same case must give the same model; draw from case.rng only")
    found, found_again = case.findings.train, repeated.findings.train
    if found is not None and found_again is not None:
        _need(torch.equal(found, found_again), f"{name}: the same case must give the same report")


@cache
def small_task(name: str) -> Task:
    """A registered task with so few rows and epochs that checks take seconds."""
    known = {f.name for f in fields(load_class("tasks", name))}  # type: ignore[arg-type]
    task = create("tasks", name, {k: v for k, v in SMALL.items() if k in known})
    assert isinstance(task, Task)
    return task


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _check(plugin: Attack | Defense, tasks: tuple[Task, ...], check: Callable[..., None]) -> None:
    chosen = tasks or tuple(small_task(EMBEDDED[m]) for m in EMBEDDED if fits(m, plugin.modalities))
    _need(bool(chosen), f"{plugin.name}: modalities={plugin.modalities} fits no embedded task; hand one over")
    reasons = []
    with tempfile.TemporaryDirectory() as folder:
        for task in chosen:
            try:
                check(plugin, task, Store(Path(folder)))
            except NotApplicable as reason:
                reasons.append(f"{task.name}: {reason}")
    _need(len(reasons) < len(chosen), f"{plugin.name} applies to none of the tasks ({'; '.join(reasons)})")


def _check_labels(attack: Attack, scene: Scene, poison: Poison) -> None:
    if attack.clean_label and poison.replaces is not None:
        at = scene.train.positions(poison.replaces)
        kept = torch.equal(scene.train.targets[at], poison.samples.targets)
        _need(kept, f"{attack.name}: says clean_label but changes labels")


def _check_refusal(attack: Attack, scene: Scene) -> None:
    try:
        attack.poison(scene, 100_000, rng())
    except BadInput as error:
        _need("dose=100000" in str(error) and "rows" in str(error),
              f"{attack.name}.poison: name the dose and the rows there are in the BadInput ({error})")  # fmt: skip
        return
    raise Broken(f"{attack.name}.poison: raise BadInput where the dose is larger than the rows that may be poisoned")


def _check_challenge(attack: Attack, scene: Scene, challenge: Challenge, poison: Poison, test: Samples) -> None:
    name, asked = attack.name, challenge.inputs
    if isinstance(attack, TargetedAttack):
        trial = scene.trial
        assert trial is not None
        _need(_same(asked, trial.target), f"{name}: the challenge of a targeted attack is the target, as it is")
        wanted = poison.samples.targets.tolist() == [trial.wanted] * len(poison.samples)
        _need(wanted, f"{name}: the poisons of a targeted attack carry the class wanted")
        return
    again = make_challenge(attack, scene, test, 0)
    equal = again is not None and again.inputs.fingerprint == asked.fingerprint
    _need(equal, f"{name}.challenge: the same rng must give the same inputs")
    plain = canonical(asked, test, scene.task, name).fingerprint == asked.fingerprint
    _need(plain, f"{name}.challenge: inputs must lie on the values that clean data takes")
    if challenge.truth is None:
        parts = [part for part in (asked, challenge.plain, challenge.near) if part is not None]
        _need(len(parts) == 3, f"{name}.challenge: give `plain` (no trigger) and `near` (a similar one)")
        _need(len({part.fingerprint for part in parts}) > 1, f"{name}.challenge: the trigger changes nothing")
        return
    assert isinstance(challenge.wanted, Tensor)
    _need(bool((challenge.wanted != challenge.truth).all()), f"{name}.challenge: leave out the class asked for")
    clean = take(test.inputs, test.positions(asked.ids))
    changed = Samples(clean, asked.targets, asked.ids).fingerprint != asked.fingerprint
    _need(changed, f"{name}.challenge: the trigger changes nothing")


def _defended(defense: Defense, task: Task, store: Store) -> tuple[Model, CellCase, str]:
    splits, attack = task.load(), create("attacks", ATTACK[task.modality])
    assert isinstance(attack, Attack)
    poisoned = poison_set(attack, Scene(task, splits.train, Fitter(task, store, CPU, 7), CPU), 5, 0)
    kind = CellOracleCase if defense.name == "oracle" else CellCase
    case = kind(poisoned.train, splits.reserve, Fitter(task, store, CPU, 0), rng())
    if isinstance(case, CellOracleCase):
        case.poisoned = poisoned.mask
    before = poisoned.train.fingerprint
    try:
        with sealed():
            return defense.defend(case), case, before
    except PermissionError as error:
        raise Broken(f"{defense.name}: {error}") from error


def _copy(samples: Samples) -> Samples:
    return Samples(copy.deepcopy(samples.inputs), samples.targets.clone(), samples.ids.clone())


def _same(a: Samples, b: Samples) -> bool:
    fresh = [Samples(s.inputs, s.targets, s.ids).fingerprint for s in (a, b)]  # a fingerprint is kept, so made anew
    return fresh[0] == fresh[1] and torch.equal(a.ids, b.ids)


def _need(kept: bool, message: str) -> None:
    if not kept:
        raise Broken(message)
