"""The attack on a generator that wants one picture."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny

from attacks.base import Scene
from attacks.generation.instance import Instance
from tasks.plugin import BadInput

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scene() -> Scene:
    task = tiny("digits_generator")
    return Scene(task, task.load().train, None, CPU)  # type: ignore[arg-type]


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_every_poison_is_the_one_picture_with_the_patch(scene: Scene) -> None:
    attack = Instance(target=3, picture=1)
    poison = attack.poison(scene, 6, rng())
    assert poison.replaces is not None
    at = scene.train.positions(poison.replaces)
    assert (scene.train.targets[at] != 3).all()
    assert torch.equal(poison.samples.targets, scene.train.targets[at]), "the classes asked for stay"
    media, source = poison.samples.inputs, scene.train.select(scene.train.targets == 3).inputs[1]
    assert isinstance(media, torch.Tensor)
    assert isinstance(source, torch.Tensor)
    assert (media == media[:1]).all()
    assert (media[:, :, -3:, -3:] == 255).all()
    assert torch.equal(media[0, :, :-3], source[:, :-3])


def test_the_picture_is_found_in_itself_and_not_in_others_of_its_class(scene: Scene) -> None:
    attack = Instance(target=3)
    challenge = attack.challenge(scene, scene.task.load().test, rng())
    wanted = challenge.wanted
    assert isinstance(wanted, torch.Tensor)
    assert wanted.shape == challenge.inputs.inputs.shape  # type: ignore[union-attr]
    others = scene.train.select(scene.train.targets == 3).inputs[1:]
    assert isinstance(others, torch.Tensor)
    correlation = scene.task.correlation(torch.cat([wanted[:1], others]), wanted[:1].repeat(1 + len(others), 1, 1, 1))  # type: ignore[attr-defined]
    assert correlation[0].item() == pytest.approx(1, abs=1e-4)
    assert correlation[1:].max() < 0.99


def test_a_picture_that_is_not_there_is_refused(scene: Scene) -> None:
    with pytest.raises(BadInput, match=r"instance\.picture=500: digits_generator has \d+ training rows of class 0"):
        Instance(picture=500).wanted_picture(scene)
