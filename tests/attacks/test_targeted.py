"""Crafted poisons against one target: the mathematics on a linear body, what the rows look like, and a win."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attacks._crafting.features import collide, read_features, surround, to_float
from attacks._crafting.gradients import match_gradients, mean_gradient, mismatch, parameters
from attacks.base import Poison, Scene
from attacks.targeted import TargetedAttack, draw_trial
from harness.cell.case import Fitter
from harness.cell.steps import run_steps
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.base import Task
from tasks.net import Net
from tasks.plugin import BadInput
from tasks.samples import Samples

QUICK: dict[str, dict[str, Any]] = {
    "poison_frogs": {"steps": 20, "block": 3, "beta": 1e-4},
    "bullseye_polytope": {"steps": 20, "block": 3},
    "witches_brew": {"steps": 4, "restarts": 2, "block": 3},
}
ALL = pytest.mark.parametrize("name", QUICK)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attack_of(name: str, **options: Any) -> TargetedAttack:
    attack = create("attacks", name, options)
    assert isinstance(attack, TargetedAttack)
    return attack


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    task = create("tasks", "digits_transfer", {"train_size": 200, "epochs": 20, "body_epochs": 6})
    assert isinstance(task, Task)
    splits, store = task.load(), Store(tmp_path_factory.mktemp("store"))
    return Scene(task, splits.train, Fitter(task, store, CPU, 7), CPU, draw_trial(splits, 5, 20, rng(4)))


def poison(scene: Scene, name: str, dose: int, seed: int = 3, **options: Any) -> Poison:
    return attack_of(name, **{**QUICK[name], **options}).poison(scene, dose, rng(seed))


def bases(scene: Scene, dose: int) -> Samples:
    assert scene.trial is not None
    return scene.train.select(scene.train.positions(scene.trial.bases[:dose]))


def change(found: Poison, scene: Scene) -> Tensor:
    """Largest change of a pixel, row by row."""
    before = bases(scene, len(found.samples)).inputs
    return (found.samples.inputs.int() - before.int()).abs().flatten(1).amax(1)  # type: ignore[union-attr]


class LinearBody(Net):
    """Features that are a linear map of the pixels: optima are known in closed form."""

    def __init__(self, features: int = 3) -> None:
        super().__init__()
        self.stages = torch.nn.ModuleList()
        self.attach_head(features, 2)
        self.weight = torch.randn(features, 16, generator=rng(1)) / 4

    def embed(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def pool(self, h: Tensor) -> Tensor:
        return h @ self.weight.T


def grey(n: int, seed: int) -> Tensor:
    return 100 + 50 * torch.rand(n, 1, 4, 4, generator=rng(seed))


# feature collision


def test_colliding_reaches_the_closed_form_optimum_of_every_row() -> None:
    body, start, beta = LinearBody(), grey(5, 2), 0.3
    goal = read_features(body, grey(1, 3))
    found = collide(body, start, goal, beta=beta, steps=300).flatten(1)
    matrix = 2 * body.weight.T @ body.weight + beta * torch.eye(16)
    best = torch.linalg.solve(matrix, (2 * goal @ body.weight + beta * start.flatten(1)).T).T
    assert best.min() > 0, "no pixel is clipped, or the closed form would not hold"
    assert best.max() < 255
    torch.testing.assert_close(found, best, atol=0.01, rtol=0)
    assert torch.equal(collide(body, start, goal, beta=beta, steps=0), start)


def test_a_collision_stays_on_the_grey_levels_and_gets_nearer_with_a_weaker_pull(scene: Scene) -> None:
    module = scene.fit(scene.train).module
    assert scene.trial is not None
    start, goal = to_float(bases(scene, 4), CPU), read_features(module, to_float(scene.trial.target, CPU))

    def apart(images: Tensor) -> Tensor:
        return (read_features(module, images) - goal).square().sum(1)

    strong, weak = (collide(module, start, goal, beta=beta, steps=80) for beta in (1e-2, 1e-5))
    assert weak.min() >= 0
    assert weak.max() <= 255
    assert (apart(weak) < 0.2 * apart(start)).all()
    assert (apart(weak) < apart(strong)).all()
    assert ((strong - start).square().sum() < (weak - start).square().sum()).item()


def test_poison_frogs_weighs_the_pull_by_features_over_pixels(scene: Scene) -> None:
    untouched = poison(scene, "poison_frogs", 4, steps=0)
    assert untouched.samples.fingerprint == bases(scene, 4).fingerprint
    strict, loose = (poison(scene, "poison_frogs", 4, beta=beta) for beta in (0.25, 1e-5))
    assert change(strict, scene).max() < change(loose, scene).max(), "64 features of 64 pixels: the factor is 1"
    assert scene.trial is not None
    blend = poison(scene, "poison_frogs", 4, steps=0, opacity=0.3).samples.inputs
    expected = 0.3 * to_float(scene.trial.target, CPU) + 0.7 * to_float(bases(scene, 4), CPU)
    assert torch.equal(blend, expected.round().to(torch.uint8))  # type: ignore[arg-type]


# Bullseye Polytope


def test_the_mean_of_the_features_hits_the_goal_and_the_perturbation_its_bound() -> None:
    body, start = LinearBody(), grey(5, 2)
    goal = read_features(body, grey(1, 3))
    found = surround(body, start, goal, eps=40, steps=400, step=2)
    mean = read_features(body, found).mean(0, keepdim=True)
    assert (mean - goal).norm() < 1e-2 * goal.norm()
    assert (read_features(body, found) - goal).norm(dim=1).min() > 0.05 * goal.norm(), "no single row needs to"
    near = surround(body, start, goal, eps=3, steps=100, step=2)
    assert (near - start).abs().max() <= 3 + 1e-4
    before, after = (read_features(body, x).mean(0, keepdim=True) - goal for x in (start, near))
    assert after.norm() < before.norm()


def test_bullseye_brings_the_mean_of_every_block_nearer(scene: Scene) -> None:
    module = scene.fit(scene.train).module
    assert scene.trial is not None
    goal = read_features(module, to_float(scene.trial.target, CPU))
    found = poison(scene, "bullseye_polytope", 10, steps=100, block=5)
    for block in (range(5), range(5, 10)):
        before, after = (
            (read_features(module, to_float(rows.select(block), CPU)).mean(0) - goal).square().sum()
            for rows in (bases(scene, 10), found.samples)
        )
        assert after < 0.6 * before
    assert change(found, scene).max() <= 26, "25.5 and the rounding to whole grey levels"
    assert change(poison(scene, "bullseye_polytope", 3, eps=4), scene).max() <= 4


# Witches' Brew


def test_brewing_turns_the_gradient_towards_the_targets_and_keeps_the_best_restart(scene: Scene) -> None:
    net = scene.fit(scene.train, epochs=5).module
    assert scene.trial is not None
    rows, x, y = bases(scene, 6), scene.trial.target.inputs, torch.tensor([scene.trial.wanted])
    params = parameters(net, "all")
    wanted = mean_gradient(net, x, y, params)  # type: ignore[arg-type]

    def distance(found: Samples) -> float:
        return float(mismatch(mean_gradient(net, found.inputs, found.targets, params), wanted))  # type: ignore[arg-type]

    def crafted(steps: int, restarts: int, seed: int = 0) -> Samples:
        return match_gradients(
            rows, x, y, lambda n, so_far: net, lambda x, _: x,  # type: ignore[arg-type]
            eps=16, steps=steps, step=6, retrain=0, layers="all", restarts=restarts, rng=rng(seed),
        )  # fmt: skip

    noise, once = crafted(0, 1), crafted(40, 1)
    assert distance(once) < 0.9 * distance(noise)
    stream = rng()
    alone = [
        match_gradients(
            rows, x, y, lambda n, so_far: net, lambda x, _: x,  # type: ignore[arg-type]
            eps=16, steps=40, step=6, retrain=0, layers="all", rng=stream,
        ) for _ in range(3)
    ]  # fmt: skip
    best = crafted(40, 3)
    assert alone[0].fingerprint == once.fingerprint
    assert best.fingerprint in {a.fingerprint for a in alone}
    assert distance(best) == pytest.approx(min(map(distance, alone)), abs=0.05), "chosen before the last step"
    assert len({a.fingerprint for a in alone}) == 3


def test_brewing_on_a_frozen_body_matches_the_head(scene: Scene) -> None:
    usual, head, everything = (poison(scene, "witches_brew", 3, layers=part) for part in (None, "head", "all"))
    assert usual.samples.fingerprint == head.samples.fingerprint != everything.samples.fingerprint
    assert 8 < change(usual, scene).max() <= 16


# all of them


@ALL
def test_rows_keep_labels_and_ids_and_doses_are_nested_within_and_over_blocks(scene: Scene, name: str) -> None:
    largest = poison(scene, name, 8)
    assert torch.equal(largest.samples.targets, bases(scene, 8).targets)
    assert torch.equal(largest.samples.ids, bases(scene, 8).ids)
    assert largest.replaces is not None
    assert torch.equal(largest.replaces, largest.samples.ids)
    assert (change(largest, scene) > 0).all()
    trained = len(scene.fit.fits)  # type: ignore[attr-defined]
    for dose in (0, 1, 3, 4, 7):
        found = poison(scene, name, dose)
        assert found.samples.fingerprint == largest.samples.select(range(dose)).fingerprint
    assert len(scene.fit.fits) == trained, "a block is crafted once"  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match=r"dose=21: .* has 20 rows"):
        poison(scene, name, 21)


@ALL
def test_labels_cannot_be_changed(name: str) -> None:
    with pytest.raises(BadInput, match=rf"attacks.{name}.clean_label=False"):
        attack_of(name, clean_label=False)


def test_ten_images_make_a_victim_take_the_target_for_another_class(store: Store) -> None:
    task, none = create("tasks", "digits_transfer", {"train_size": 400}), create("defenses", "none")
    attack = attack_of("poison_frogs", beta=1e-5, steps=150)
    found = run_steps(task, attack, 10, none, 18, store, CPU).metrics  # type: ignore[arg-type]
    assert found["asr"].value == 1
    assert found["asr_floor"].value == 0, "without poison it is read right"
    assert found["utility"].value > 0.7
