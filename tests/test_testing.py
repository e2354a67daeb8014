"""The contract kit catches what it is there to catch, and says what to change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from attacks.base import Poison, Scene, TriggerAttack
from attacks.image.badnets import Badnets
from defenses.base import Case, Defense
from defenses.controls.none import None_
from harness.testing import Broken, check_attack, check_defense, check_task, small_task
from tasks.base import NotApplicable, Samples, options
from tasks.deployed import Model


@options
class Stamp(TriggerAttack):
    """A white corner, as it should be."""

    modalities: ClassVar[tuple[str, ...]] = ("image",)

    def stamp(self, scene: Scene, inputs: Tensor | list[str], rng: torch.Generator) -> Tensor | list[str]:
        assert isinstance(inputs, Tensor)
        out = inputs.clone()
        out[:, :, -2:, -2:] = 255
        return out


@options
class Scribbler(Stamp):
    def stamp(self, scene: Scene, inputs: Tensor | list[str], rng: torch.Generator) -> Tensor | list[str]:
        inputs[:, :, -2:, -2:] = 255  # type: ignore[index, call-overload]
        return inputs


@options
class Invisible(Stamp):
    def stamp(self, scene: Scene, inputs: Tensor | list[str], rng: torch.Generator) -> Tensor | list[str]:
        return inputs


@options
class Moody(Stamp):
    def stamp(self, scene: Scene, inputs: Tensor | list[str], rng: torch.Generator) -> Tensor | list[str]:
        assert isinstance(inputs, Tensor)
        return inputs.clone().fill_(int(torch.randint(200, (), dtype=torch.int64)))


@options
class Unnested(Stamp):
    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        found = super().poison(scene, dose, rng)
        assert found.replaces is not None
        back = torch.arange(dose).flip(0)
        return Poison(found.samples.select(back), found.replaces[back])


@options
class Filter(Defense):
    """Drops the first tenth, as it may."""

    modalities: ClassVar[tuple[str, ...]] = ("image",)

    def defend(self, case: Case) -> Model:
        return case.fit(case.train.select(range(len(case.train) // 10, len(case.train))))


@options
class Dice(Filter):
    def defend(self, case: Case) -> Model:
        return case.fit(case.train.select(torch.randperm(len(case.train))[:50]))


@options
class Vandal(Filter):
    def defend(self, case: Case) -> Model:
        case.train.targets[:3] = 0
        return case.fit(case.train)


@options
class Thief(Filter):
    def defend(self, case: Case) -> Model:
        return case.fit(case.task.load().test)


@options
class Elsewhere(Filter):
    def defend(self, case: Case) -> Model:
        raise NotApplicable("never")


def test_what_is_right_passes() -> None:
    check_attack(Stamp())
    check_attack(Badnets(), small_task("digits"))
    check_defense(Filter())
    check_defense(None_(), small_task("synthetic_tones"))
    check_task(small_task("digits"))


@pytest.mark.parametrize(
    ("attack", "complaint"),
    [
        (Scribbler(), "changed the inputs it was given; work on a copy"),
        (Invisible(), "the trigger changes nothing"),
        (Moody(), "the same rng must give the same poison"),
        (Unnested(), "doses must be nested"),
    ],
)
def test_a_broken_attack_is_told_what_to_change(attack: TriggerAttack, complaint: str) -> None:
    with pytest.raises(Broken, match=complaint):
        check_attack(attack)


@pytest.mark.parametrize(
    ("defense", "complaint"),
    [
        (Dice(), r"the same case must give the same model; draw from case\.rng only"),
        (Vandal(), r"changed case\.train in place"),
        (Thief(), r"use case\.train and case\.clean"),
        (Elsewhere(), "applies to none of the tasks"),
    ],
)
def test_a_broken_defense_is_told_what_to_change(defense: Defense, complaint: str) -> None:
    with pytest.raises(Broken, match=complaint):
        check_defense(defense)


def test_a_broken_task_is_told_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    task: Any = small_task("digits")
    splits = task.load()
    test = splits.test
    same_ids = replace(splits, test=Samples(test.inputs, test.targets, torch.zeros_like(test.ids)))
    monkeypatch.setattr(type(task), "load", lambda self: same_ids)
    with pytest.raises(Broken, match="an id of its own"):
        check_task(task)
    wrong = replace(splits, train=Samples(splits.train.inputs, splits.train.targets + 5, splits.train.ids))
    monkeypatch.setattr(type(task), "load", lambda self: wrong)
    with pytest.raises(Broken, match="a label of train is not in 0 to 9"):
        check_task(task)
