"""The contract of every plug-in, generated from the registry: add a file and it is tested."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import ATTACK, CPU, EMBEDDED, task_names, tiny

from attacks.base import Attack, Scene
from attacks.targeted import TargetedAttack, draw
from defenses.base import Defense
from harness.case import CellCase, CellOracleCase, Fitter
from harness.cell import make_challenge, poison_set
from harness.poison import canonical, craft
from harness.registry import KINDS, create, entries, fits
from harness.store import Store
from tasks.base import BadInput, NotApplicable, Samples, sealed, take
from tasks.deployed import Model

MODALITIES = {"image", "text", "audio", "tabular", "language", "image_generation", "audio_generation"} | {"any"}
ALL = [(kind, name) for kind in KINDS for name in entries(kind)]
ATTACK_TASKS = [  # task by task, so that a dataset is read once
    (a.name, t)
    for t in task_names()
    for a in entries("attacks").values()
    if fits(entries("tasks")[t].modalities[0], a.modalities)
]
DEFENSE_TASKS = [(d, t) for d in entries("defenses") for t in EMBEDDED.values()]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_default_constructible_and_options_round_trip(kind: str, name: str) -> None:
    plugin = create(kind, name)
    assert create(kind, name, plugin.options()) == plugin
    assert hash(create(kind, name)) == hash(plugin)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_described_for_the_list(kind: str, name: str) -> None:
    entry = entries(kind)[name]
    assert len(entry.summary) > 20, "the docstring's first paragraph is what `tinydrop list` shows"
    assert set(entry.modalities) <= MODALITIES
    assert entry.modalities
    if entry.stage not in ("controls", "control") and name not in ("image_folder", "csv_text", "audio_folder"):
        assert entry.paper or (kind == "tasks"), "name the paper"
    if kind == "defenses" and not ("any" in entry.modalities or {"image", "text", "audio"} <= set(entry.modalities)):
        assert entry.why_not, "say why it makes no sense for the other modalities"


def scene_of(task_name: str, store: Store) -> Scene:
    task = tiny(task_name)
    splits = task.load()
    trial = draw(splits, len(task.classes), 6, rng()) if len(task.classes) > 1 else None
    return Scene(task, splits.train, Fitter(task, store, CPU, 7), CPU, trial)


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(a: Samples, b: Samples) -> bool:
    return a.fingerprint == b.fingerprint and torch.equal(a.ids, b.ids)


@pytest.mark.parametrize(("attack_name", "task_name"), ATTACK_TASKS)
def test_attack(attack_name: str, task_name: str, store: Store) -> None:
    known = create("attacks", attack_name).options()
    small = {"rounds": 40, "steps": 4, "retrain": 0, "sources": 60, "restarts": 1}
    quick = {k: v for k, v in small.items() if k in known}
    attack, scene = create("attacks", attack_name, quick), scene_of(task_name, store)
    assert isinstance(attack, Attack)
    before = Samples(copy.deepcopy(scene.train.inputs), scene.train.targets.clone(), scene.train.ids.clone())
    doses = (0,) if attack_name == "none" else (0, 2, 5)
    try:
        poisons = [craft(attack, scene, dose, rng()) for dose in doses]
    except NotApplicable as reason:
        pytest.skip(f"not applicable: {reason}")
    for dose, poison in zip(doses, poisons, strict=True):
        assert len(poison.samples) == dose, "the dose is exact"
        assert same(craft(attack, scene, dose, rng()).samples, poison.samples), "same rng, same poison"
    small, large = poisons[-2:] if len(poisons) > 1 else (poisons[0], poisons[0])
    assert same(large.samples.select(range(len(small.samples))), small.samples), "doses are nested"
    if attack.clean_label and large.replaces is not None:
        at = scene.train.positions(large.replaces)
        assert torch.equal(scene.train.targets[at], large.samples.targets), "clean-label keeps labels"
    assert same(scene.train, before), "the clean training set is not mutated"
    if attack_name != "none":
        with pytest.raises(BadInput, match=r"dose=100000.*\d+ rows"):
            attack.poison(scene, 100_000, rng())

    test = scene.task.load().test
    untouched = copy.deepcopy(test.inputs)
    challenge = make_challenge(attack, scene, test, 0)
    if challenge is None:
        assert attack_name == "none"
        return
    if isinstance(attack, TargetedAttack):
        assert scene.trial is not None
        assert same(challenge.inputs, scene.trial.target), "the challenge is the target, as it is"
        assert challenge.wanted.tolist() == [scene.trial.wanted]
        assert large.samples.targets.tolist() == [scene.trial.wanted] * len(large.samples)
        return
    if challenge.truth is None:
        assert challenge.plain is not None, "what a generative model does without the trigger is to be seen"
        assert challenge.near is not None, "and with a trigger that is only similar"
        parts = [challenge.inputs, challenge.plain, challenge.near]
        assert len({part.fingerprint for part in parts}) > 1, "the trigger changes the requests"
        assert len({len(part) for part in parts} | {len(challenge.wanted)}) == 1
        return
    assert (challenge.wanted != challenge.truth).all(), "the class asked for is excluded"
    assert challenge.inputs.fingerprint == make_challenge(attack, scene, test, 0).inputs.fingerprint  # type: ignore[union-attr]
    assert challenge.inputs.fingerprint == canonical(challenge.inputs, test, scene.task, attack_name).fingerprint
    at = test.positions(challenge.inputs.ids)
    assert (
        take(test.inputs, at) != challenge.inputs.inputs
        if isinstance(test.inputs, list)
        else not torch.equal(
            test.inputs[at],
            challenge.inputs.inputs,  # type: ignore[arg-type]
        )
    ), "the trigger changes the inputs"
    assert test.inputs == untouched if isinstance(test.inputs, list) else torch.equal(test.inputs, untouched)


def defended(defense: Defense, task_name: str, store: Store) -> tuple[Model, CellCase]:
    task = tiny(task_name)
    splits = task.load()
    modality = task.modality
    attack = create("attacks", ATTACK[modality])
    scene = Scene(task, splits.train, Fitter(task, store, CPU, 7), CPU)
    poisoned = poison_set(attack, scene, 5, 0)  # type: ignore[arg-type]
    case = (CellOracleCase if defense.name == "oracle" else CellCase)(
        poisoned.train, splits.reserve, Fitter(task, store, CPU, 0), rng()
    )
    if isinstance(case, CellOracleCase):
        case.poisoned = poisoned.mask
    with sealed():
        return defense.defend(case), case


def small(defense_name: str, task_name: str) -> Defense:
    """The defense with options that make it quick; the contract does not depend on them."""
    options = entries("defenses")[defense_name].options
    quick = {
        "clean_rows": 40,
        "parts": 3,
        "overlays": 4,
        "epochs": 1,
        "teacher_epochs": 1,
        "unlearn_epochs": 1,
    }
    defense = create("defenses", defense_name, {k: v for k, v in quick.items() if k in options})
    assert isinstance(defense, Defense)
    if not fits(tiny(task_name).modality, defense.modalities):
        pytest.skip(f"not applicable: {defense.why_not}")
    return defense


@pytest.mark.parametrize(("defense_name", "task_name"), DEFENSE_TASKS)
def test_defense(defense_name: str, task_name: str, store: Store) -> None:
    defense = small(defense_name, task_name)
    splits = tiny(task_name).load()
    before = splits.reserve.select(range(len(splits.reserve))).fingerprint
    try:
        model, case = defended(defense, task_name, store)
    except NotApplicable as reason:
        pytest.skip(f"not applicable: {reason}")
    train_before = case.train.fingerprint
    outputs = model.predict(splits.test)
    if outputs.content is None:
        assert outputs.scores.shape == (len(splits.test), len(tiny(task_name).classes))
    assert outputs.scores.dtype == torch.float32
    assert torch.isfinite(outputs.scores).all()
    assert outputs.abstained.shape == (len(splits.test),)
    again = model.predict(splits.test)
    assert torch.equal(outputs.scores, again.scores), "the same question gets the same answer"
    assert torch.equal(outputs.abstained, again.abstained)
    assert Samples(case.train.inputs, case.train.targets, case.train.ids).fingerprint == train_before
    assert splits.reserve.select(range(len(splits.reserve))).fingerprint == before
    assert case.findings.clean_used <= len(splits.reserve)
    repeated, other = defended(defense, task_name, store)
    assert torch.equal(repeated.predict(splits.test).scores, outputs.scores), "same case, same model"
    found, found_again = case.findings, other.findings
    if found.train is not None and found_again.train is not None:
        assert torch.equal(found.train, found_again.train)
