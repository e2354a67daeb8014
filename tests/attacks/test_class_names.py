"""Options that name a class: by number, or by name; the plug-in sees the number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.base import Attack, Scene, TriggerAttack, check_classes, named_classes, number_classes, target_class
from attacks.controls.label_flip import LabelFlip
from attacks.generation.concept_shift import ConceptShift
from attacks.image.badnets import Badnets
from harness.plugins.registry import create, entries
from tasks.image.digits import Digits
from tasks.image.fashion_mnist import FashionMnist
from tasks.plugin import BadInput, Count, NotApplicable, options


@options
class Elsewhere(TriggerAttack[Tensor]):
    """An attack whose author knows numbers alone."""

    target: Count = 2

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        return inputs


def test_every_attack_with_a_target_takes_a_name() -> None:
    found = {name for name in entries("attacks") if "target" in named_classes(create("attacks", name))}  # type: ignore[arg-type]
    with_target = {name for name in entries("attacks") if hasattr(create("attacks", name), "target")}
    assert found == with_target
    assert {"badnets", "badwords", "tone_clip", "label_flip", "noise_trigger", "concept_shift"} <= found


def test_names_become_numbers() -> None:
    task = FashionMnist()
    sandal = 5
    name = task.classes[sandal]
    assert number_classes(task, Badnets(target=name)) == Badnets(target=sandal)  # type: ignore[arg-type]
    same = Badnets(target=3)
    assert number_classes(task, same) is same
    both = number_classes(task, ConceptShift(source=name, target=task.classes[0]))  # type: ignore[arg-type]
    assert (both.source, both.target) == (sandal, 0)
    assert named_classes(Elsewhere()) == {}
    assert number_classes(task, Elsewhere()) == Elsewhere()


def test_a_class_whose_name_is_a_number() -> None:
    class Folders(FashionMnist):
        classes = ("0", "1", "10", "11", "2")

    assert number_classes(Folders(), Badnets(target="10")).target == 2  # type: ignore[arg-type]
    assert number_classes(Folders(), Badnets(target=2)).target == 2
    with pytest.raises(NotApplicable, match="for class number 3 leave the quotes out"):
        number_classes(Folders(), Badnets(target="3"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (10, "attacks.badnets.target=10: digits has classes 0 to 9"),
        ("10", "target='10': digits has no class of that name; valid: '0'"),
        ("Spam", "target='Spam': digits has no class of that name; valid: '0', '1'"),
        ("", "target='': digits has no class of that name"),
    ],
)
def test_a_class_that_is_not_there(value: Any, message: str) -> None:
    attack = Badnets(target=value)
    with pytest.raises(BadInput) as caught:
        check_classes(Digits(), attack)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    if isinstance(value, str):
        with pytest.raises(NotApplicable):
            number_classes(Digits(), attack)
    assert check_classes(Digits(), Badnets(target=9)) is None  # type: ignore[func-returns-value]


def test_the_nearest_name_is_suggested() -> None:
    class Mail(FashionMnist):
        classes = ("ham", "spam", *(f"folder {i}" for i in range(30)))

    with pytest.raises(BadInput, match=r"did you mean 'spam'\? valid: 'ham', 'spam', .*, \.\.\.$"):
        check_classes(Mail(), Badnets(target="Spam"))  # type: ignore[arg-type]


def test_a_name_may_be_spelt_otherwise_in_unicode() -> None:
    class Answers(FashionMnist):
        classes = ("no", "Si\u0301")

    class Twice(FashionMnist):
        classes = ("u\u0323\u0302", "\u1ee5\u0302", "no")

    attack = Badnets(target="S\u00ed")  # type: ignore[arg-type]
    assert check_classes(Answers(), attack) is None  # type: ignore[func-returns-value]
    assert number_classes(Answers(), attack).target == 1
    exact = Badnets(target="\u1ee5\u0302")  # type: ignore[arg-type]
    assert number_classes(Twice(), exact).target == 1, "a name as it is written comes first"
    with pytest.raises(BadInput, match=r"has 2 classes of that name.* 'u\\u0323\\u0302', '\\u1ee5\\u0302'$"):
        check_classes(Twice(), Badnets(target="u\u0302\u0323"))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, -1, 1.0, None, ["a"]])
def test_what_is_neither_a_number_nor_a_name(value: Any) -> None:
    with pytest.raises(BadInput, match=r"attacks\.badnets\.target=.*: must be the number of a class, 0 or more"):
        create("attacks", "badnets", {"target": value})


def test_what_a_record_calls_the_target() -> None:
    named: list[tuple[Attack, Any]] = [
        (Badnets(target=4), (4, "4")),
        (Badnets(target=12), None),
        (LabelFlip(aim="class", target=1), (1, "1")),
        (LabelFlip(aim="instance"), None),
        (create("attacks", "none"), None),  # type: ignore[list-item]
    ]
    for attack, expected in named:
        assert target_class(Digits(), attack) == expected
