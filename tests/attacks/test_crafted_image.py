"""Crafted image poisons: the mathematics against plain loops and finite differences, and what the rows look like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import tiny

from attacks._crafting.cover import cover_mask
from attacks._crafting.gradients import (
    flat_gradient,
    gradient_norms,
    match_gradients,
    mean_gradient,
    mismatch,
    parameters,
    project,
)
from attacks._crafting.squares import random_patch
from attacks.base import Poison, Scene
from attacks.image.adaptive_blend import random_pieces
from harness.cell.case import Fitter
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks._models.cnn import CNN
from tasks.net import Net
from tasks.plugin import BadInput
from tasks.samples import Samples


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene_of(store: Store) -> Scene:
    task = tiny("digits")
    return Scene(task, task.load().train, Fitter(task, store, CPU, 7), CPU)


def poison(scene: Scene, name: str, dose: int, **options: object) -> Poison:
    return create("attacks", name, options).poison(scene, dose, rng(3))  # type: ignore[attr-defined, no-any-return]


def originals(scene: Scene, found: Poison) -> Samples:
    assert found.replaces is not None
    return scene.train.select(scene.train.positions(found.replaces))


def network() -> CNN:
    torch.manual_seed(0)
    return CNN(1, 3, width=4).eval()


def batch(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(n, 1, 8, 8, generator=rng()) * 255, torch.arange(n) % 3


# Adaptive-Blend


@pytest.mark.parametrize(
    ("share", "dose", "expected"), [(0.5, 6, "010101"), (0.0, 3, "000"), (1.0, 3, "111"), (0.25, 8, "00010001")]
)
def test_cover_rows_are_spread_evenly_and_nested(share: float, dose: int, expected: str) -> None:
    assert "".join(str(int(c)) for c in cover_mask(dose, share)) == expected
    for smaller in range(dose):
        assert torch.equal(cover_mask(smaller, share), cover_mask(dose, share)[:smaller])


@pytest.mark.parametrize(("h", "w"), [(8, 8), (28, 28), (10, 13)])
def test_every_image_shows_another_half_of_the_pieces(h: int, w: int) -> None:
    shown = random_pieces(40, h, w, 4, 0.5, rng())[:, 0]
    for image in shown:
        pieces = {(y * 4 // h, x * 4 // w) for y in range(h) for x in range(w) if image[y, x]}
        hidden = {(y * 4 // h, x * 4 // w) for y in range(h) for x in range(w) if not image[y, x]}
        assert len(pieces) == len(hidden) == 8
        assert not pieces & hidden
    assert len({tuple(image.flatten().tolist()) for image in shown}) > 35
    assert (shown.float().mean(0) - 0.5).abs().max() < 0.3


def test_adaptive_blend_relabels_payload_rows_and_keeps_cover_rows(store: Store) -> None:
    scene = scene_of(store)
    found = poison(scene, "adaptive_blend", 10, target=2)
    before = originals(scene, found)
    cover = cover_mask(10, 0.5)
    assert (before.targets != 2).all()
    assert (found.samples.targets[~cover] == 2).all()
    assert torch.equal(found.samples.targets[cover], before.targets[cover])
    assert (found.samples.inputs != before.inputs).flatten(1).any(1).all(), "cover rows carry the trigger too"


def test_adaptive_blend_hides_half_in_training_and_shows_all_in_the_challenge(store: Store) -> None:
    scene = scene_of(store)
    whole = create("attacks", "blended", {"alpha": 0.15}).stamp(scene, scene.train.inputs, rng())  # type: ignore[attr-defined]
    found = poison(scene, "adaptive_blend", 20)
    before = originals(scene, found).inputs
    stamped = whole[scene.train.positions(found.replaces)]  # type: ignore[arg-type]
    as_stamped, as_before = found.samples.inputs == stamped, found.samples.inputs == before
    assert (as_stamped | as_before).all()
    assert 0.3 < (as_stamped & ~as_before).float().sum() / (stamped != before).float().sum() < 0.7  # type: ignore[operator]
    test = scene.task.load().test
    full = create("attacks", "blended", {"alpha": 0.2}).challenge(scene, test, rng())  # type: ignore[attr-defined]
    ours = create("attacks", "adaptive_blend").challenge(scene, test, rng())  # type: ignore[attr-defined]
    assert torch.equal(ours.inputs.inputs, full.inputs.inputs)


@pytest.mark.parametrize(("name", "wrong"), [("adaptive_blend", True), ("sleeper_agent", False)])
def test_attacks_that_cannot_change_their_labelling_say_so(name: str, wrong: bool) -> None:
    with pytest.raises(BadInput, match=rf"attacks.{name}.clean_label={wrong}"):
        create("attacks", name, {"clean_label": wrong})


# gradient matching


def test_mean_gradient_and_norms_equal_a_loop_over_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attacks._crafting.gradients.CHUNK", 16)
    net, (x, y) = network(), batch(30)  # more than one chunk
    params = parameters(net, "all")
    rows = torch.stack([flat_gradient(F.cross_entropy(net(x[i : i + 1]), y[i : i + 1]), params) for i in range(30)])
    assert torch.allclose(mean_gradient(net, x, y, params), rows.mean(0), atol=1e-5)
    assert torch.allclose(gradient_norms(net, x, y), rows.norm(dim=1), rtol=1e-3, atol=1e-5)


def test_the_head_alone_can_be_matched() -> None:
    net = network()
    assert {id(p) for p in parameters(net, "head")} == {id(net.head.weight), id(net.head.bias)}


def test_mismatch_is_one_minus_the_cosine() -> None:
    a, b = torch.randn(50, generator=rng(1)), torch.randn(50, generator=rng(2))
    cosine = np.dot(a.numpy(), b.numpy()) / np.linalg.norm(a.numpy()) / np.linalg.norm(b.numpy())
    assert float(mismatch(a, b)) == pytest.approx(1 - cosine, abs=1e-5)
    assert float(mismatch(a, 3 * a)) == pytest.approx(0, abs=1e-6)
    assert float(mismatch(a, -a)) == pytest.approx(2, abs=1e-6)


def test_the_gradient_through_the_gradient_agrees_with_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network().double()
    monkeypatch.setattr(net, "embed", lambda x: (x - 127.5) / 64)  # without its cast to float32
    (x, y), params = batch(), parameters(net, "all")
    x = x.double()
    wanted = mean_gradient(net, x.flip(3), torch.zeros_like(y), params)

    def apart(delta: torch.Tensor) -> torch.Tensor:
        return mismatch(flat_gradient(F.cross_entropy(net(x + delta), y), params, graph=True), wanted)

    delta = torch.zeros_like(x).requires_grad_()
    (gradient,) = torch.autograd.grad(apart(delta), [delta])
    way = torch.randn(x.shape, generator=rng(4), dtype=torch.float64)
    h = 1e-4
    numeric = float((apart(h * way) - apart(-h * way)).detach()) / (2 * h)
    assert float((gradient * way).sum()) == pytest.approx(numeric, rel=1e-3)


def test_projection_keeps_to_the_ball_and_to_the_grey_levels() -> None:
    images = torch.tensor([0.0, 3.0, 128.0, 250.0, 255.0])
    for push, expected in [(40.0, [16, 16, 16, 5, 0]), (-40.0, [0, -3, -16, -16, -16])]:
        assert project(torch.full((5,), push), images, 16).tolist() == expected


def test_crafting_turns_the_gradient_towards_the_wanted_one(store: Store) -> None:
    scene = scene_of(store)
    net = scene.fit(scene.train, epochs=8).module
    rows = scene.train.select((scene.train.targets == 0).nonzero().flatten()[:8])
    others = scene.train.select(scene.train.targets != 0)
    x = create("attacks", "sleeper_agent", {"size": 4}).stamp(scene, others.inputs, rng())  # type: ignore[attr-defined]
    y = torch.zeros_like(others.targets)
    asked: list[tuple[int, str]] = []

    def surrogate(number: int, so_far: Samples) -> Net:
        asked.append((number, so_far.fingerprint))
        return net

    def distance(found: Samples) -> float:
        params = parameters(net, "all")
        theirs = mean_gradient(net, found.inputs, found.targets, params)  # type: ignore[arg-type]
        return float(mismatch(theirs, mean_gradient(net, x, y, params)))

    def crafted(steps: int) -> Samples:
        return match_gradients(
            rows, x, y, surrogate, lambda x, _: x,
            eps=16, steps=steps, step=6, retrain=2, layers="all", rng=rng(),
        )  # fmt: skip

    noise, found = crafted(0), crafted(30)
    assert [number for number, _ in asked] == [0, 1, 2]
    assert len({content for _, content in asked}) == 3, "each surrogate is trained on the poison as it then stands"
    assert found.inputs.dtype == torch.uint8  # type: ignore[union-attr]
    for one in (noise, found):
        change = (one.inputs.int() - rows.inputs.int()).abs()  # type: ignore[union-attr]
        assert 8 < int(change.max()) <= 16
    assert distance(found) < 0.85 * distance(noise)


# Sleeper Agent


def test_a_patch_is_half_bright() -> None:
    for channels, size in [(1, 2), (3, 8), (1, 7)]:
        patch = random_patch(channels, size, 0)
        assert patch.shape == (channels, size, size)
        assert int((patch == 255).sum()) == (patch.numel() + 1) // 2
        assert int(((patch > 0) & (patch < 255)).sum()) == 0
    assert not torch.equal(random_patch(3, 8, 0), random_patch(3, 8, 1))


@pytest.mark.parametrize(("shape", "size"), [((2, 1, 8, 8), 2), ((2, 1, 28, 28), 7), ((2, 3, 32, 40), 8)])
def test_the_patch_takes_a_quarter_of_the_side(shape: tuple[int, ...], size: int, store: Store) -> None:
    inputs = torch.full(shape, 100, dtype=torch.uint8)
    out = create("attacks", "sleeper_agent").stamp(scene_of(store), inputs, rng())  # type: ignore[attr-defined]
    assert (out[:, :, -size:, -size:] != 100).all()
    assert int((out != inputs).sum()) == shape[0] * shape[1] * size * size


def test_sleeper_agent_doses_are_nested_within_and_over_blocks_and_crafted_once(store: Store) -> None:
    scene, options = scene_of(store), {"steps": 4, "retrain": 1, "block": 4}
    largest = poison(scene, "sleeper_agent", 10, **options)
    trained = len(scene.fit.fits)  # type: ignore[attr-defined]
    for dose in (0, 1, 4, 5, 9):
        found = poison(scene, "sleeper_agent", dose, **options)
        assert found.samples.fingerprint == largest.samples.select(range(dose)).fingerprint
        assert torch.equal(found.samples.ids, largest.samples.ids[:dose])
    assert len(scene.fit.fits) == trained  # type: ignore[attr-defined]
    other = create("attacks", "sleeper_agent", options).poison(scene, 10, rng(4))  # type: ignore[attr-defined]
    assert other.samples.fingerprint != largest.samples.fingerprint


def test_sleeper_agent_takes_the_rows_of_largest_gradient_and_hides_its_trigger(store: Store) -> None:
    scene = scene_of(store)
    found = poison(scene, "sleeper_agent", 6, steps=2, retrain=0, block=3)
    before = originals(scene, found)
    assert (before.targets == 0).all()
    assert torch.equal(found.samples.targets, before.targets)
    change = (found.samples.inputs.int() - before.inputs.int()).abs()  # type: ignore[union-attr]
    assert 0 < int(change.max()) <= 16, "no poison shows the patch"
    (weights,) = scene.fit.memory.values()  # type: ignore[attr-defined]
    net = scene.task.model()
    net.load_state_dict(weights, strict=False)  # beside the weights it holds the time of training
    net.eval()
    pool = scene.train.select(scene.train.targets == 0)
    norms = gradient_norms(net, pool.inputs, pool.targets)  # type: ignore[arg-type]
    assert torch.equal(pool.ids[norms.argsort(descending=True)][:6], found.samples.ids)
    shuffled = poison(scene, "sleeper_agent", 6, steps=2, retrain=0, block=3, selection="random")
    assert not torch.equal(shuffled.samples.ids, found.samples.ids)
