"""Triggers of frequency, grey levels, pieces and sources, and two crafted ones: what they add, and to which rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny
from scipy.fft import dctn

from attacks._crafting.cover import cover_mask
from attacks._crafting.features import imitate, read_features
from attacks._crafting.generators import sameness
from attacks._crafting.squares import random_patch
from attacks.base import Poison, Scene
from attacks.image.bpp import dither, quantise
from attacks.image.ftrojan import COLOURS, cosine_wave
from attacks.image.label_consistent import corner_signs, move_away
from harness.cell.case import Fitter
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.plugin import BadInput, NotApplicable
from tasks.samples import Samples


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def scene(store: Store) -> Scene:
    task = tiny("digits")
    return Scene(task, task.load().train, Fitter(task, store, CPU, 7), CPU)


def attack(name: str, **options: object) -> Any:
    return create("attacks", name, options)


def stamp(name: str, inputs: torch.Tensor, **options: object) -> torch.Tensor:
    """Stamped inputs, of an attack that does not look at the scene."""
    return attack(name, **options).stamp(None, inputs, rng())  # type: ignore[no-any-return]


def originals(scene: Scene, found: Poison) -> Samples:
    assert found.replaces is not None
    return scene.train.select(scene.train.positions(found.replaces))


def pixels(samples: Samples) -> torch.Tensor:
    assert isinstance(samples.inputs, torch.Tensor)
    return samples.inputs


# FTrojan and CTRL


@pytest.mark.parametrize(
    ("h", "w", "window", "expected"),
    [(32, 32, None, {(15, 15), (31, 31)}), (28, 28, None, {(13, 13), (27, 27)}), (8, 16, None, {(3, 7), (7, 15)})],
)
def test_two_coefficients_are_raised_and_no_other(
    h: int, w: int, window: int | None, expected: set[tuple[int, int]]
) -> None:
    spectrum = dctn(cosine_wave(h, w, 30, (15, 31), window).numpy(), norm="ortho")
    for at in expected:
        assert spectrum[at] == pytest.approx(30, abs=1e-3)
        spectrum[at] = 0
    assert np.abs(spectrum).max() < 1e-3


def test_every_whole_window_has_the_same_wave() -> None:
    wave = cosine_wave(20, 17, 30, (15, 31), 8)
    assert torch.equal(wave[:8, :8], wave[8:16, 8:16])
    assert wave[:16, :16].abs().max() > 0
    assert not wave[16:].any()
    assert not wave[:, 16:].any()


def test_colour_pictures_change_in_u_and_v_alone() -> None:
    grey = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
    r, g, b = (stamp("ftrojan", grey, magnitude=200.0)[0].double() - 128).unbind()
    luma, wave = 0.299 * r + 0.587 * g + 0.114 * b, cosine_wave(32, 32, 200, (15, 31), None).double()
    assert luma.abs().max() < 0.6, "rounding alone"
    assert torch.allclose(0.492 * (b - luma), wave, atol=0.6)
    assert torch.allclose(0.877 * (r - luma), wave, atol=1.0)
    assert COLOURS.sum(1)[0] > 0


def test_clean_labels_make_it_ctrl() -> None:
    grey = torch.full((1, 1, 32, 32), 128, dtype=torch.uint8)
    strong = stamp("ftrojan", grey, clean_label=True)
    assert torch.equal(strong, stamp("ftrojan", grey, magnitude=100.0))
    assert (strong.int() - 128).abs().max() > (stamp("ftrojan", grey).int() - 128).abs().max()


# BppAttack


def test_quantising_leaves_so_many_levels_and_moves_no_value_far() -> None:
    x = torch.arange(256.0)
    for levels in (2, 8, 32):
        found = quantise(x, levels)
        assert len(found.unique()) == levels
        assert (found - x).abs().max() <= 255 / (levels - 1) / 2 + 0.5
    assert torch.equal(quantise(quantise(x, 8), 8), quantise(x, 8))


def test_dithering_equals_a_plain_loop_and_keeps_the_mean() -> None:
    picture = torch.randint(0, 256, (1, 2, 9, 7), generator=rng()).to(torch.uint8)
    expected = picture[0].numpy().astype(np.float64)
    for c in range(2):
        for i in range(9):
            for j in range(7):
                old = expected[c, i, j]
                new = round(round(min(max(old / 255 * 3, 0), 3)) / 3 * 255)
                expected[c, i, j] = new
                for down, right, part in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                    if i + down < 9 and 0 <= j + right < 7:
                        expected[c, i + down, j + right] += (old - new) * part / 16
    found = dither(picture, 4)
    assert np.array_equal(found[0].numpy(), expected)
    flat = torch.full((1, 1, 32, 32), 100, dtype=torch.uint8)
    assert dither(flat, 2).float().mean() == pytest.approx(100, abs=4), "0 and 255 by turns"
    assert quantise(flat.float(), 2).unique().tolist() == [0]


def test_noise_rows_keep_their_label_and_carry_the_residual_of_another_picture(scene: Scene) -> None:
    found = attack("bpp", levels=3).poison(scene, 8, rng(3))
    before, cover = originals(scene, found), cover_mask(8, 0.5)
    assert torch.equal(found.samples.targets[cover], before.targets[cover])
    assert (found.samples.targets[~cover] == 0).all()
    assert torch.equal(pixels(found.samples)[~cover], stamp("bpp", pixels(before)[~cover], levels=3))
    everything = pixels(scene.train).int()
    residuals = stamp("bpp", pixels(scene.train), levels=3).int() - everything
    for noisy, clean in zip(pixels(found.samples)[cover], pixels(before)[cover], strict=True):
        possible = (clean.int() + residuals).clamp(0, 255)
        assert (possible == noisy.int()).flatten(1).all(1).any(), "the residual of some training row"
        assert not torch.equal(noisy, stamp("bpp", clean[None], levels=3)[0]), "and not its own"


# Adaptive-Patch


def test_a_training_image_carries_one_faint_patch_and_a_test_image_two_whole_ones(scene: Scene) -> None:
    inputs = torch.full((60, 1, 8, 8), 100, dtype=torch.uint8)
    corners = [(slice(0, 2), slice(0, 2)), (slice(0, 2), slice(6, 8)), (slice(6, 8), slice(0, 2)), (slice(6, 8),) * 2]
    out = stamp("adaptive_patch", inputs)
    seen = torch.stack([(out[:, 0, rows, cols] != 100).flatten(1).any(1) for rows, cols in corners], 1)
    assert (seen.sum(1) == 1).all()
    assert (seen.sum(0) > 5).all(), "each patch on some"
    for i, (rows, cols) in enumerate(corners):
        alpha = (0.5, 0.2, 0.5, 0.3)[i]
        expected = ((1 - alpha) * 100 + alpha * random_patch(1, 2, i).float()).round().to(torch.uint8)
        assert (out[seen[:, i]][:, :, rows, cols] == expected).all()
    test = scene.task.load().test
    asked = attack("adaptive_patch").challenge(scene, test, rng()).inputs
    plain = pixels(test.select(test.positions(asked.ids)))
    for i in (0, 2):
        assert (pixels(asked)[(..., *corners[i])] == random_patch(1, 2, i)).all()
    for i in (1, 3):
        assert torch.equal(pixels(asked)[(..., *corners[i])], plain[(..., *corners[i])])


def test_two_of_three_rows_are_cover_rows(scene: Scene) -> None:
    found = attack("adaptive_patch").poison(scene, 9, rng(3))
    kept = found.samples.targets == originals(scene, found).targets
    assert kept.tolist() == [False, True, True] * 3


# TaCT


def test_payload_rows_are_of_the_source_and_cover_rows_of_the_cover_classes(scene: Scene) -> None:
    found = attack("tact").poison(scene, 7, rng(3))
    before, cover = originals(scene, found), cover_mask(7, 0.5)
    assert (before.targets[~cover] == 1).all()
    assert (found.samples.targets[~cover] == 0).all()
    assert set(before.targets[cover].tolist()) <= {5, 7}
    assert torch.equal(found.samples.targets[cover], before.targets[cover])
    assert torch.equal(pixels(found.samples), stamp("badnets", pixels(before)))


def test_the_challenge_is_the_source_class_alone(scene: Scene) -> None:
    test = scene.task.load().test
    challenge = attack("tact", source=3).challenge(scene, test, rng())
    assert len(challenge.inputs) == int((test.targets == 3).sum())
    assert (challenge.truth == 3).all()
    assert (challenge.wanted == 0).all()


def test_a_class_with_two_roles_a_class_that_is_not_there_and_too_many_rows(scene: Scene) -> None:
    for options in ({"source": 0}, {"source": 5}, {"target": 7}):
        with pytest.raises(BadInput, match="a class has one role"):
            attack("tact", **options).poison(scene, 2, rng())
    with pytest.raises(NotApplicable, match="cover_classes has class 12: digits has classes 0 to 9"):
        attack("tact", cover_classes=(12,)).poison(scene, 2, rng())
    source = int((scene.train.targets == 1).sum())
    attack("tact", cover=0.0).poison(scene, source, rng())
    with pytest.raises(BadInput, match=f"dose={source + 1}: tact on digits has {source} rows of class 1"):
        attack("tact", cover=0.0).poison(scene, source + 1, rng())


# TrojanNN


def test_the_patch_excites_the_neurons_with_the_heaviest_weights(scene: Scene) -> None:
    module = scene.fit(scene.train).module.eval()
    heaviest = module.head.weight.abs().sum(0).argsort(descending=True)[:2]
    black = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)

    def reached(rounds: int) -> torch.Tensor:
        stamped = attack("trojannn", rounds=rounds, size=3).stamp(scene, black, rng())
        assert not stamped[..., :4, :].any()
        assert not stamped[..., -1].any(), "the margin"
        with torch.no_grad():
            return (100 - module.features(stamped)[0, heaviest]).square().sum()

    assert reached(100) < reached(0), "nearer to the activation than the random start"


# Label-consistent


def test_signs_stand_in_the_corners_and_survive_a_flip() -> None:
    signs = corner_signs(8, 9, 3, "four")
    assert torch.equal(signs, signs.flip(1))
    assert torch.equal(signs, signs.flip(0))
    assert int(signs.abs().sum()) == 36
    assert signs[:3, :3].tolist() == [[1, -1, 1], [-1, 1, -1], [1, -1, 1]]
    one = corner_signs(8, 9, 3, "one")
    assert int(one.abs().sum()) == 9
    assert torch.equal(one[5:, 6:], signs[5:, 6:])


def test_moving_away_raises_the_loss_within_the_bound(scene: Scene) -> None:
    net, rows = scene.fit(scene.train, epochs=30).module.eval(), scene.train.select(range(20))
    images, labels = pixels(rows).float(), rows.targets

    def loss(x: torch.Tensor) -> float:
        with torch.no_grad():
            return torch.nn.functional.cross_entropy(net(x), labels).item()

    moved = move_away(net, images, labels, eps=8, steps=10, step=1.5)
    assert (moved - images).abs().max() <= 8 + 1e-4
    assert moved.min() >= 0
    assert moved.max() <= 255
    assert loss(moved) > 3 * loss(images)
    assert torch.equal(move_away(net, images, labels, eps=8, steps=0, step=1.5), images)


def test_rows_are_hard_images_of_the_target_with_the_pattern(scene: Scene) -> None:
    found = attack("label_consistent", steps=4).poison(scene, 5, rng(3))
    before = originals(scene, found)
    assert (before.targets == 0).all()
    assert torch.equal(found.samples.targets, before.targets)
    corner = corner_signs(8, 8, 3, "four") != 0
    stamped = pixels(found.samples)[:, 0, corner]
    assert set(stamped.unique().tolist()) == {0, 255}
    change = (pixels(found.samples).int() - pixels(before).int())[:, 0, ~corner].abs()
    assert 0 < int(change.max()) <= 6, "four steps of 1.5"
    bare = attack("label_consistent", steps=0).poison(scene, 5, rng(3))
    assert torch.equal(pixels(bare.samples)[:, 0, ~corner], pixels(before)[:, 0, ~corner])
    assert torch.equal(bare.samples.ids, found.samples.ids)


# Input-aware


def test_sameness_is_low_where_what_is_made_of_two_pictures_differs() -> None:
    x1, x2 = torch.zeros(3, 1, 2, 2), torch.full((3, 1, 2, 2), 0.5)
    assert sameness(x1, x2, x1, x2).item() == pytest.approx(1, abs=1e-3)
    assert sameness(x1, x2, x1, 2 * x2).item() == pytest.approx(0.5, abs=1e-3)
    assert sameness(x1, x2, x2, x2).item() > 100


def test_masks_are_sparse_triggers_differ_and_a_cross_row_has_that_of_another_picture(scene: Scene) -> None:
    ours = attack("input_aware", mask_epochs=20, teacher_epochs=2, batch=40)
    networks, inputs = ours.networks(scene), pixels(scene.train)[:30]
    masks = networks.mask(inputs.float())
    assert 0 < masks.flatten(1).mean(1).mean() < 0.15
    dense = attack("input_aware", mask_epochs=20, teacher_epochs=1, batch=40, sparsity=0.0).networks(scene)
    assert dense.mask(inputs.float()).mean() > 2 * masks.mean(), "it is the penalty that keeps them small"
    own, other = ours.stamp(scene, inputs, rng()), networks.stamp(inputs, inputs.roll(1, 0))
    assert (own != other).flatten(1).any(1).float().mean() > 0.8
    found = ours.poison(scene, 6, rng(3))
    before, cover = originals(scene, found), cover_mask(6, 0.5)
    assert torch.equal(found.samples.targets[cover], before.targets[cover])
    for clean, crossed in zip(pixels(before)[cover], pixels(found.samples)[cover], strict=True):
        everything = pixels(scene.train)
        possible = torch.cat([networks.stamp(clean[None], everything[n : n + 1]) for n in range(len(everything))])
        assert (possible == crossed).flatten(1).all(1).any()


def test_no_classifier_no_input_aware_trigger(store: Store) -> None:
    task = tiny("digits_transfer")
    with pytest.raises(NotApplicable, match="is not trained"):
        attack("input_aware").poison(Scene(task, task.load().train, Fitter(task, store, CPU, 7), CPU), 2, rng())


# Hidden trigger


def test_each_image_imitates_a_goal_of_its_own(scene: Scene) -> None:
    module = scene.fit(scene.train, epochs=5).module
    images = pixels(scene.train).float()
    bases, goals = images[:6], read_features(module, images[20:26])

    def apart(x: torch.Tensor) -> torch.Tensor:
        return torch.cdist(read_features(module, x), goals)

    moved = imitate(module, bases, goals, eps=64, steps=60, step=4)
    assert (moved - bases).abs().max() <= 64 + 1e-3
    assert moved.min() >= 0
    assert moved.max() <= 255
    assert apart(moved).min(1).values.mean() < 0.7 * apart(bases).min(1).values.mean()
    assert len(set(apart(moved).argmin(1).tolist())) > 3, "not all of them the same goal"


def test_no_hidden_poison_shows_the_patch_and_only_the_source_is_asked(scene: Scene) -> None:
    ours = attack("hidden_trigger", source=4, steps=3)
    found = ours.poison(scene, 5, rng(3))
    before = originals(scene, found)
    assert (before.targets == 0).all()
    assert torch.equal(found.samples.targets, before.targets)
    assert 0 < int((pixels(found.samples).int() - pixels(before).int()).abs().max()) <= 16
    test = scene.task.load().test
    challenge = ours.challenge(scene, test, rng())
    assert len(challenge.inputs) == int((test.targets == 4).sum())
    many = ours.stamp(scene, torch.full((40, 1, 8, 8), 100, dtype=torch.uint8), rng())
    changed = (many != 100).flatten(2).nonzero()
    assert len(changed) == 40 * 4
    assert len({tuple(row.flatten().tolist()) for row in many}) > 15, "at random places"
    with pytest.raises(BadInput, match="is the target"):
        attack("hidden_trigger", source=0).poison(scene, 2, rng())
    with pytest.raises(NotApplicable, match="source=10: digits has classes 0 to 9"):
        attack("hidden_trigger", source=10).poison(scene, 2, rng())
