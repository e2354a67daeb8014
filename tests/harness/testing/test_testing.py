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
from harness.plugins.registry import create
from harness.testing.checks import Broken, check_attack, check_defense, check_task, small_task
from tasks.data import make_samples, read_once
from tasks.deployed import Model
from tasks.image import ImageTask
from tasks.plugin import NotApplicable, options
from tasks.samples import Samples


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
class Floats(Stamp):
    def stamp(self, scene: Scene, inputs: Tensor | list[str], rng: torch.Generator) -> Tensor | list[str]:
        return inputs / 255  # type: ignore[operator]


@options
class Fewer(Stamp):
    def stamp(self, scene: Scene, inputs: Tensor | list[str], rng: torch.Generator) -> Tensor | list[str]:
        return inputs[1:]


@options
class More(Stamp):
    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        return super().poison(scene, dose + 1, rng)


@options
class Relabelling(Stamp):
    clean_label: bool = True

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        rows = scene.train.select(range(dose))
        return Poison(Samples(rows.inputs, (rows.targets + 1) % 10, rows.ids), rows.ids)


@options
class Spy(Stamp):
    def stamp(self, scene: Scene, inputs: Tensor | list[str], rng: torch.Generator) -> Tensor | list[str]:
        return scene.task.load().test.inputs[: len(inputs)]


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
class Reader(Filter):
    def defend(self, case: Case) -> Model:
        return case.fit(case.task.read()[1])  # type: ignore[attr-defined]


@options
class Published(Filter):
    def defend(self, case: Case) -> Model:
        return case.fit(read_once(case.task)[1])


@options
class Lost(Filter):
    def defend(self, case: Case) -> Model:
        case.fit(case.train)
        return None  # type: ignore[return-value]


@options
class Bare(Filter):
    def defend(self, case: Case) -> Model:
        return case.fit(case.train).module  # type: ignore[return-value]


@options
class Slip(Filter):
    def defend(self, case: Case) -> Model:
        return case.fit(case.trian)  # type: ignore[attr-defined, no-any-return]


@options
class Signature(Filter):
    def defend(self, case: Case, more: int) -> Model:  # type: ignore[override]
        return case.fit(case.train)


@options
class Short(Filter):
    def defend(self, case: Case) -> Model:
        case.report(flagged=torch.zeros(3, dtype=torch.bool))
        return case.fit(case.train)


@options
class Unsure(Filter):
    def defend(self, case: Case) -> Model:
        case.report(train=torch.full((len(case.train),), torch.nan))
        return case.fit(case.train)


@options
class Empty(Filter):
    def defend(self, case: Case) -> Model:
        return case.fit(case.train.select([]))


@options
class Untyped(Filter):
    clean_rows = 3


class Undecorated(Filter):
    clean_rows: int = 3


@options
class WrongDefault(Filter):
    clean_rows: int = "three"  # type: ignore[assignment]


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
        (Invisible(), "the trigger changes none of the 36 challenge inputs"),
        (Moody(), "the same rng must give the same poison"),
        (Unnested(), "doses must be nested"),
        (Floats(), r"inputs are torch.float32 \(2, 1, 8, 8\), expected torch.uint8"),
        (Fewer(), r"stamp: 4 inputs gave uint8 \(3, 1, 8, 8\)"),
        (More(), "asked for 0 poisons, got 1"),
        (Relabelling(), "is clean-label but changed a label"),
        (Spy(), r"an attack scene\.train \(test_testing\.py, line \d+\)"),
    ],
)
def test_a_broken_attack_is_told_what_to_change(attack: TriggerAttack, complaint: str) -> None:
    with pytest.raises(Broken, match=complaint):
        check_attack(attack)


@pytest.mark.parametrize(
    ("defense", "complaint"),
    [
        (Dice(), "draws from the global generator of torch"),
        (Vandal(), r"changed case\.train in place"),
        (Thief(), r"may use case\.train and case\.clean"),
        (Reader(), r"may use case\.train and case\.clean"),
        (Published(), r"may use case\.train and case\.clean"),
        (Lost(), "defend returned nothing; return what case.fit returns"),
        (Bare(), "defend returned a"),
        (Slip(), r"no attribute 'trian' \(test_testing\.py, line \d+\) \(on digits\)"),
        (Signature(), "missing 1 required positional argument: 'more'"),
        (Short(), r"report\(flagged=\): shape \(3,\), expected a tensor of shape \(120,\)"),
        (Unsure(), r"report\(train=\) is NaN for 120 of 120 rows"),
        (Empty(), "the training set is empty"),
        (Untyped(), "clean_rows = 3 has no type, so it is no option"),
        (Undecorated(), "decorate the class Undecorated with @options"),
        (WrongDefault(), "clean_rows='three': Input should be a valid integer"),
        (Elsewhere(), "applies to none of the tasks"),
    ],
)
def test_a_broken_defense_is_told_what_to_change(defense: Defense, complaint: str) -> None:
    with pytest.raises(Broken, match=complaint):
        check_defense(defense)


@options
class Noise(ImageTask):
    """Bright or dark noise, as it should be."""

    dataset: ClassVar[str] = "embedded"
    licence: ClassVar[str] = "none"
    classes: ClassVar[tuple[str, ...]] = ("dark", "bright")
    channels: ClassVar[int] = 1

    def read(self) -> tuple[Samples, Samples]:
        return self.drawn(torch.Generator().manual_seed(0))

    def drawn(self, rng: torch.Generator | None) -> tuple[Samples, Samples]:
        targets = torch.arange(200) % 2
        images = torch.randint(156, (200, 1, 8, 8), generator=rng) + 100 * targets[:, None, None, None]
        everything = make_samples(images.to(torch.uint8), targets)
        return everything.select(range(150)), everything.select(range(150, 200))


@options
class Weather(Noise):
    def read(self) -> tuple[Samples, Samples]:
        return self.drawn(None)


@options
class Rehearsed(Noise):
    def read(self) -> tuple[Samples, Samples]:
        return super().read()[0], super().read()[0]


@options
class Grey(Noise):
    def read(self) -> tuple[Samples, Samples]:
        train, test = super().read()
        return train.with_inputs(train.inputs / 255), test.with_inputs(test.inputs / 255)  # type: ignore[operator]


@options
class Absent(Noise):
    def read(self) -> tuple[Samples, Samples]:
        return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("task", "complaint"),
    [
        (Weather, "read gives other rows every time"),
        (Rehearsed, r"read: 150 of 150 test rows are training rows"),
        (Grey, r"inputs of train are float32 \(150, 1, 8, 8\) in \[.*\]; a task for image has uint8"),
        (Absent, "read returned nothing; return two"),
    ],
)
def test_broken_data_is_told_what_to_change(task: type[Noise], complaint: str) -> None:
    small = {"reserve_size": 60, "epochs": 1}
    check_task(Noise(**small))  # type: ignore[arg-type]
    with pytest.raises(Broken, match=complaint):
        check_task(task(**small))  # type: ignore[arg-type]


def test_a_check_says_what_was_spent() -> None:
    case = check_defense(create("defenses", "strip", {"clean_rows": 20, "overlays": 2}), small_task("digits"))[0]  # type: ignore[arg-type]
    assert (case.task, case.fits, case.clean) == ("digits", 1, 20)
    assert "1 model trained, 20 clean rows" in str(case)


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


@options
class Unknown(Stamp):
    unseen: ClassVar[dict[str, dict[str, Any]]] = {"larger": {"sice": 5}}


@options
class Unnamed(Badnets):
    unseen: ClassVar[dict[str, dict[str, Any]]] = {"a b": {"size": 5}}


@options
class Mistyped(Badnets):
    unseen: ClassVar[dict[str, dict[str, Any]]] = {"larger": {"size": "5"}}


@pytest.mark.parametrize(
    ("attack", "complaint"),
    [(Unknown(), "unseen.'larger'.*sice"), (Unnamed(), "'a b' is no word"), (Mistyped(), "unseen.'larger'.*integer")],
)
def test_an_unseen_trigger_that_is_no_change_of_options_is_refused(attack: Any, complaint: str) -> None:
    with pytest.raises(Broken, match=complaint):
        check_attack(attack, small_task("digits"))
