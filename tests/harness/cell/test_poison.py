"""What an attack hands back: poison and challenge are checked before anything is trained on them, or judged by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from helpers import tiny
from torch import Tensor

from attacks.base import Attack, Poison, Scene
from harness.cell.case import Fitter
from harness.cell.poison import craft_poison
from harness.cell.steps import make_challenge, run_steps
from harness.errors import BrokenAttack
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU, Broken, check_attack
from tasks.base import Task
from tasks.plugin import options
from tasks.samples import Challenge, Samples

DOSE = 3
NAN = float("nan")


@options
class Crafted(Attack):
    """Three training rows as they are, but for one change; asks for class 0 of the others."""

    modalities: ClassVar[tuple[str, ...]] = ("any",)

    alters: ClassVar[tuple[str, ...]] = ()

    how: str = ""

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Any:
        if self.how == "scribble on train":
            scene.train.targets[0] = 9
        rows = scene.train.select(range(dose))
        return POISONS.get(self.how, lambda p: p)(Poison(rows, rows.ids))

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Any:
        if self.how == "scribble on test":
            samples.inputs[:] = 0  # type: ignore[index, call-overload]
        others = samples.select(samples.targets != 0)
        found = Challenge(others, torch.zeros_like(others.targets), others.targets)
        return CHALLENGES.get(self.how, lambda c: c)(found)


def change(**fields: Callable[[Any], Any]) -> Callable[[Poison], Poison]:
    """A poison with these fields of its samples changed."""
    return lambda p: replace(p, samples=replace(p.samples, **{k: f(getattr(p.samples, k)) for k, f in fields.items()}))


POISONS: dict[str, Callable[[Poison], Any]] = {
    "nothing": lambda p: None,
    "tuple": lambda p: (p.samples, p.replaces),
    "list": lambda p: [p.samples],
    "samples": lambda p: p.samples,
    "inner tuple": lambda p: replace(p, samples=(p.samples.inputs, p.samples.targets)),
    "float targets": change(targets=lambda t: t.float()),
    "nan targets": change(targets=lambda t: t * NAN),
    "int32 targets": change(targets=lambda t: t.int()),
    "flat targets": change(targets=lambda t: t[:, None]),
    "more targets": change(targets=lambda t: torch.cat([t, t])),
    "fewer inputs": change(inputs=lambda x: x[1:]),
    "label 10": change(targets=lambda t: t * 0 + 10),
    "label -1": change(targets=lambda t: t * 0 - 1),
    "listed targets": change(targets=lambda t: t.tolist()),
    "no ids": change(ids=lambda i: None),
    "float replaces": lambda p: replace(p, replaces=p.replaces.float()),  # type: ignore[union-attr]
    "listed replaces": lambda p: replace(p, replaces=p.replaces.tolist()),  # type: ignore[arg-type, union-attr]
    "same replaces": lambda p: replace(p, replaces=p.replaces * 0),  # type: ignore[operator]
    "short replaces": lambda p: replace(p, replaces=p.replaces[1:]),  # type: ignore[index]
    "unknown replaces": lambda p: replace(p, replaces=p.replaces + 10**9),  # type: ignore[operator]
}


def scene(store: Store, task: Task | None = None) -> Scene:
    task = task or tiny("digits")
    return Scene(task, task.load().train, Fitter(task, store, CPU, 0), CPU)


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("nothing", r"\.poison returned nothing; return an attacks\.base\.Poison"),
        ("tuple", r"\.poison returned a tuple"),
        ("list", r"\.poison returned a list"),
        ("samples", r"\.poison returned a Samples"),
        ("inner tuple", "the poison is a tuple, expected a tasks.samples.Samples"),
        ("float targets", r"targets of the poison are float32 \(3,\).*, expected int64 \(N,\)"),
        ("nan targets", r"targets of the poison are float32 \(3,\) in \[nan, nan\]"),
        ("int32 targets", "targets of the poison are int32"),
        ("flat targets", r"targets of the poison are int64 \(3, 1\)"),
        ("more targets", "the poison has 3 inputs, 6 targets and 3 ids"),
        ("fewer inputs", "the poison has 2 inputs, 3 targets"),
        ("label 10", "a label of the poison is not in 0 to 9, as `classes` says: row 0 has 10"),
        ("label -1", "row 0 has -1"),
        ("listed targets", "targets of the poison are a list"),
        ("no ids", "ids of the poison are nothing"),
        ("float replaces", r"replaces must name 3 different ids, int64 \(3,\): it is float32 \(3,\)"),
        ("listed replaces", "it is a list"),
        ("same replaces", "replaces must name 3 different ids"),
        ("short replaces", r"it is int64 \(2,\)"),
        ("unknown replaces", r"replaces names id \d+, which no row of scene\.train has"),
    ],
)
def test_poison_that_cannot_be_put_in_is_refused(how: str, complaint: str, store: Store) -> None:
    with pytest.raises(BrokenAttack, match=rf"^test_poison[^\n]*{complaint}[^\n]*$"):
        craft_poison(Crafted(how=how), scene(store), DOSE, torch.Generator())


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_sound_that_is_no_number_is_refused(value: float, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POISONS, "broken", change(inputs=lambda x: x + value))
    with pytest.raises(BrokenAttack, match="test_poison: inputs are not finite"):
        craft_poison(Crafted(how="broken"), scene(store, tiny("synthetic_tones")), DOSE, torch.Generator())


def test_poison_with_gradients_is_taken_without_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POISONS, "learnt", change(inputs=lambda x: x.clone().requires_grad_()))
    found = craft_poison(Crafted(how="learnt"), scene(store, tiny("synthetic_tones")), DOSE, torch.Generator())
    assert isinstance(found.samples.inputs, Tensor)
    assert not found.samples.inputs.requires_grad


CHALLENGES: dict[str, Callable[[Challenge], Any]] = {
    "tuple": lambda c: (c.inputs, c.wanted),
    "samples": lambda c: c.inputs,
    "no inputs": lambda c: replace(c, inputs=None),
    "float wanted": lambda c: replace(c, wanted=c.wanted.float()),  # type: ignore[union-attr]
    "nan wanted": lambda c: replace(c, wanted=c.wanted * NAN),  # type: ignore[operator]
    "wanted 10": lambda c: replace(c, wanted=c.wanted + 10),  # type: ignore[operator]
    "wanted -1": lambda c: replace(c, wanted=c.wanted - 1),  # type: ignore[operator]
    "one wanted": lambda c: replace(c, wanted=0),  # type: ignore[arg-type]
    "wanted by name": lambda c: replace(c, wanted=["zero"] * len(c.inputs)),
    "short wanted": lambda c: replace(c, wanted=c.wanted[1:]),
    "wanted of shape ()": lambda c: replace(c, wanted=torch.tensor(0)),
    "float truth": lambda c: replace(c, truth=c.truth.float()),  # type: ignore[union-attr]
    "truth -1": lambda c: replace(c, truth=c.truth * 0 - 1),  # type: ignore[operator]
    "short truth": lambda c: replace(c, truth=c.truth[:-1]),  # type: ignore[index]
    "wanted is true": lambda c: replace(c, truth=c.wanted),  # type: ignore[arg-type]
    "plain tensor": lambda c: replace(c, plain=c.inputs.inputs),  # type: ignore[arg-type]
    "short near": lambda c: replace(c, near=c.inputs.select([0])),
    "few targets": lambda c: replace(c, inputs=replace(c.inputs, targets=c.inputs.targets[1:])),
    "float inputs": lambda c: replace(c, inputs=c.inputs.with_inputs(c.inputs.inputs / 255)),  # type: ignore[operator]
    "wide plain": lambda c: replace(c, plain=c.inputs.with_inputs(c.inputs.inputs.repeat(1, 3, 1, 1))),  # type: ignore[union-attr]
}


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("tuple", r"challenge returned a tuple; return a tasks\.samples\.Challenge, or None"),
        ("samples", "challenge returned a Samples"),
        ("no inputs", "inputs is nothing, expected a tasks.samples.Samples"),
        ("float wanted", r"wanted is float32 \(\d+,\) in \[0, 0\], expected classes, int64"),
        ("nan wanted", r"wanted is float32 \(\d+,\) in \[nan, nan\]"),
        ("wanted 10", "wanted names class 10; digits has 0 to 9"),
        ("wanted -1", "wanted names class -1"),
        ("one wanted", "wanted is a int, expected classes"),
        ("wanted by name", "wanted is a list, expected classes"),
        ("short wanted", "inputs, wanted, truth, plain and near differ in length"),
        ("wanted of shape ()", r"wanted is int64 \(\)"),
        ("float truth", "truth is float32"),
        ("truth -1", "truth names class -1"),
        ("short truth", "differ in length"),
        ("wanted is true", "the challenge must exclude inputs of the class it wants"),
        ("plain tensor", r"plain is uint8 \(\d+, 1, 8, 8\)"),
        ("short near", "differ in length"),
        ("few targets", r"inputs has \d+ inputs, \d+ targets"),
        ("float inputs", "inputs are torch.float32"),
        ("wide plain", r"inputs are torch.uint8 \(\d+, 3, 8, 8\)"),
    ],
)
def test_a_challenge_that_cannot_be_judged_is_refused(how: str, complaint: str, store: Store) -> None:
    where, test = scene(store), tiny("digits").load().test
    assert make_challenge(Crafted(), where, test, 0) is not None
    with pytest.raises(BrokenAttack, match=rf"^test_poison[^\n]*{complaint}[^\n]*$"):
        make_challenge(Crafted(how=how), where, test, 0)


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (["(", "a"], r"wanted has '\(', which is no regular expression"),
        (["a", None], "wanted is a list, expected classes"),
        (["a"], "differ in length"),
        (torch.full((2, 4), NAN), r"wanted is float32 \(2, 4\)"),
        ("ab", "wanted is a str"),
    ],
)
def test_what_a_generator_shall_make_is_checked(
    wanted: Any, complaint: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny("synthetic_stories")
    test = task.load().test.select([0, 1])
    test = replace(test, targets=test.targets + 1)

    def asked(goal: Any) -> Any:
        monkeypatch.setitem(CHALLENGES, "own", lambda c: Challenge(test, goal, plain=test, near=test))
        return make_challenge(Crafted(how="own"), scene(store, task), test, 0)

    assert asked(["a", "(?i)b"]).wanted == ["a", "(?i)b"]
    with pytest.raises(BrokenAttack, match=complaint):
        asked(wanted)


@pytest.mark.parametrize(
    ("how", "complaint"),
    [("scribble on train", "changed scene.train in place"), ("scribble on test", "changed the test samples in place")],
)
def test_an_attack_that_writes_on_the_data_is_caught(how: str, complaint: str, store: Store) -> None:
    task = tiny("digits")
    before = task.load().train.fingerprint, task.load().test.fingerprint
    with pytest.raises(BrokenAttack, match=f"test_poison {complaint}"):
        run_steps(task, Crafted(how=how), 2, create("defenses", "none"), 0, store, CPU)  # type: ignore[arg-type]
    fresh = [Samples(s.inputs, s.targets, s.ids).fingerprint for s in (task.load().train, task.load().test)]
    assert fresh == list(before), "the next cell gets clean data again"


def test_check_finds_the_same() -> None:
    with pytest.raises(Broken, match=r"test_poison: targets of the poison are float32 \(0,\)"):
        check_attack(Crafted(how="float targets"), tiny("digits"))
    with pytest.raises(Broken, match="poison returned nothing"):
        check_attack(Crafted(how="nothing"), tiny("digits"))
