"""Narcissus, for images and sounds: the bound, the optimised pattern, and that poison and challenge carry the same."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from attacks._crafting.optimised import optimise_pattern
from attacks.audio.narcissus_audio import NarcissusAudio
from attacks.base import Scene
from attacks.image.narcissus import Narcissus
from harness.cell.train import train_victim
from harness.plugins.registry import create
from harness.testing.checks import CPU
from tasks.base import Task
from tasks.deployed import Victim
from tasks.plugin import NotApplicable
from tasks.samples import Samples

Either = Narcissus | NarcissusAudio
ATTACKS: list[tuple[str, Either]] = [
    ("digits", Narcissus(rounds=60, batch=32)),
    ("synthetic_tones", NarcissusAudio(rounds=60, batch=32)),
]
both = pytest.mark.parametrize(("name", "attack"), ATTACKS)


@cache
def trained(name: str, seed: int) -> tuple[Task, Samples, Victim]:
    task = create("tasks", name, {"train_size": 300, "epochs": 5})
    assert isinstance(task, Task)
    train = task.load().train
    return task, train, train_victim(task, train, recipe=task.recipe(), seed=seed, device=CPU)


def scene(name: str, seed: int = 7) -> Scene:
    """A scene whose surrogate is trained once for all tests."""
    task, train, victim = trained(name, seed)

    def fit(samples: Samples, **changes: object) -> Victim:
        assert samples.fingerprint == train.fingerprint, "the surrogate learns the clean training set"
        return victim

    return Scene(task, train, fit, CPU)


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loss(name: str, attack: Either, pattern: Tensor) -> float:
    """The surrogate's loss towards the target class on that class's rows with this pattern."""
    task, train, victim = trained(name, 7)
    rows = train.select(train.targets == attack.target)
    low, high = (0, 255) if isinstance(attack, Narcissus) else (-1, 1)
    stamped = rows.with_inputs((rows.inputs.float() + pattern).clamp(low, high))  # type: ignore[union-attr]
    with torch.no_grad():
        return F.cross_entropy(victim.module.eval()(task.encode(stamped, CPU)).float(), rows.targets).item()


@both
def test_lowers_the_surrogates_loss_more_than_the_same_values_shuffled(name: str, attack: Either) -> None:
    pattern = attack.trigger(scene(name))
    shuffled = [pattern.flatten()[torch.randperm(pattern.numel(), generator=rng(s))] for s in range(5)]
    found = loss(name, attack, pattern)
    assert found < loss(name, attack, torch.zeros_like(pattern))
    assert found < min(loss(name, attack, s.view_as(pattern)) for s in shuffled)


@both
def test_poison_stays_within_the_bound_and_uses_it(name: str, attack: Either) -> None:
    """At a rate that would carry most of the pattern far out of the bound."""
    here, attack = scene(name), replace(attack, lr=1.0)
    poison = attack.poison(here, 20, rng())
    assert poison.replaces is not None
    clean = here.train.select(here.train.positions(poison.replaces))
    assert (clean.targets == attack.target).all(), "rows of the target class alone"
    assert torch.equal(poison.samples.targets, clean.targets)
    change = (poison.samples.inputs.float() - clean.inputs.float()).abs().max()  # type: ignore[union-attr]
    assert attack.bound * 0.99 < change <= attack.bound * 1.0001
    assert attack.trigger(here).abs().max() <= attack.bound


@both
def test_poison_and_challenge_carry_the_same_pattern_at_another_strength(name: str, attack: Either) -> None:
    """Grey or silent inputs of other classes, so that nothing is clipped: what the challenge adds is the pattern."""
    here = scene(name)
    pattern = attack.trigger(here)
    image = isinstance(attack, Narcissus)
    if image:
        pattern = pattern.round()
    shape = (4, *here.train.inputs.shape[1:])  # type: ignore[union-attr]
    flat = torch.full(shape, 128, dtype=torch.uint8) if image else torch.zeros(shape)
    others = Samples(flat, torch.tensor([0, 1, 2, 3]), torch.arange(4))
    changed = Scene(here.task, here.train, here.fit, CPU)
    challenge = attack.challenge(changed, others, rng(99))
    assert challenge.truth.tolist() == [1, 2, 3]
    added = challenge.inputs.inputs.float() - flat[1:].float()  # type: ignore[union-attr]
    assert torch.allclose(added, 3 * pattern.expand_as(added), atol=1e-6)
    stamped = attack.stamp(here, flat, rng(5))
    assert torch.allclose(stamped.float() - flat.float(), pattern.expand(shape), atol=1e-6)


@both
def test_repeats_without_the_cache_and_depends_on_what_it_should(name: str, attack: Either) -> None:
    first = attack.trigger(scene(name))
    optimise_pattern.cache_clear()
    assert torch.equal(attack.trigger(scene(name)), first), "same surrogate, same pattern, bit for bit"
    hits = optimise_pattern.cache_info().hits
    assert torch.equal(replace(attack, strength=2.0).trigger(scene(name)), first)
    assert optimise_pattern.cache_info().hits == hits + 1, "another strength is not another optimisation"
    assert not torch.equal(attack.trigger(scene(name, seed=8)), first), "another surrogate, another pattern"
    assert not torch.equal(replace(attack, target=1).trigger(scene(name)), first)


@both
def test_a_target_the_task_does_not_have(name: str, attack: Either) -> None:
    with pytest.raises(NotApplicable, match="target=10"):
        replace(attack, target=10).trigger(scene(name))


def test_the_bound_leaves_tones_at_twenty_decibels_or_more() -> None:
    """The default loudness, against the median clip."""
    here = scene("synthetic_tones")
    power = NarcissusAudio(rounds=60, batch=32).trigger(here).square().mean()
    clips = here.train.inputs.square().mean(1)  # type: ignore[union-attr]
    assert 10 * (clips.median() / power).log10() > 20
