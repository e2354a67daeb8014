"""Crafting a poison set, checking it, and putting it where nothing but its content gives it away."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.base import Attack, Poison, Scene
from harness.errors import BrokenAttack
from tasks.base import Task
from tasks.plugin import BadInput
from tasks.samples import Challenge, Samples


@dataclass(frozen=True)
class Poisoned:
    """The training set that a victim gets, and what only the harness knows about it."""

    train: Samples
    mask: Tensor  # (N,) bool: which rows are poison


def craft_poison(attack: Attack, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
    """Ask the attack for `dose` poisons and check what came back; raises BrokenAttack."""
    if dose < 0:
        raise BadInput(f"dose={dose}: a dose is a number of samples, 0 or more")
    poison = attack.poison(scene, dose, rng)
    conformed = Poison(conform(poison.samples, scene.train, scene.task, attack.name), poison.replaces)
    _check_poison(attack, scene, dose, conformed)
    return conformed


def conform(samples: Samples, like: Samples, task: Task, who: str) -> Samples:
    """The samples on the value grid of clean data (`Task.quantise`), so that no encoding tells poison from clean rows.

    Raises BrokenAttack, naming `who` made them, where their type or shape differs from that of clean data.
    """
    inputs = samples.inputs
    if isinstance(like.inputs, list):
        if not isinstance(inputs, list) or not all(isinstance(t, str) for t in inputs):
            raise BrokenAttack(f"{who}: inputs must be a list of str")
        return samples
    if not isinstance(inputs, Tensor) or inputs.dtype != like.inputs.dtype or inputs.shape[1:] != like.inputs.shape[1:]:
        got = f"{inputs.dtype} {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise BrokenAttack(f"{who}: inputs are {got}, expected {like.inputs.dtype} (N, {tuple(like.inputs.shape[1:])})")
    if not torch.isfinite(inputs).all():
        raise BrokenAttack(f"{who}: inputs are not finite")
    return samples.with_inputs(task.quantise(inputs))


def inject(train: Samples, poison: Poison, rng: torch.Generator) -> Poisoned:
    """Put the poison where nothing but its content gives it away.

    It takes the place and the id of what it replaces, or is shuffled in, and then every row gets a fresh id.
    """
    if not len(poison.samples):
        return Poisoned(train, torch.zeros(len(train), dtype=torch.bool))
    if poison.replaces is not None:
        positions = train.positions(poison.replaces)
        mask = torch.zeros(len(train), dtype=torch.bool).index_fill(0, positions, True)
        return Poisoned(train.replace(positions, poison.samples), mask)
    total = len(train) + len(poison.samples)
    order = torch.randperm(total, generator=rng)
    merged = train.append(poison.samples).select(order)
    return Poisoned(Samples(merged.inputs, merged.targets, torch.arange(total)), order >= len(train))


def _check_poison(attack: Attack, scene: Scene, dose: int, poison: Poison) -> None:
    samples, replaces, train = poison.samples, poison.replaces, scene.train
    if len(samples) != dose:
        raise BrokenAttack(f"{attack.name}: asked for {dose} poisons, got {len(samples)}")
    if len(samples) and (samples.targets.min() < 0 or samples.targets.max() >= scene.task.conditions):
        raise BrokenAttack(f"{attack.name}: labels outside 0 to {scene.task.conditions - 1}")
    if replaces is not None:
        if len(replaces) != dose or len(set(replaces.tolist())) != dose:
            raise BrokenAttack(f"{attack.name}: replaces must name {dose} different ids")
        if attack.clean_label and not torch.equal(train.targets[train.positions(replaces)], samples.targets):
            raise BrokenAttack(f"{attack.name}: is clean-label but changed a label")


def check_challenge(attack: Attack, challenge: Challenge) -> None:
    """Raises BrokenAttack where parts differ in length, or where an input's true answer is already the wanted one.

    Raises BadInput for a challenge without inputs, of which no share could be measured.
    """
    parts = (challenge.wanted, challenge.truth, challenge.plain, challenge.near)
    if any(part is not None and len(part) != len(challenge.inputs) for part in parts):
        raise BrokenAttack(f"{attack.name}: inputs, wanted, truth, plain and near of the challenge differ in length")
    if not len(challenge.inputs):
        target = f" outside target={attack.target}" if hasattr(attack, "target") else ""
        raise BadInput(
            f"{attack.name}: its challenge is empty: the test set has no row{target} to be misused; add test rows, or "
            "change the attack's target"
        )
    wanted, truth = challenge.wanted, challenge.truth
    if truth is not None and isinstance(wanted, Tensor) and bool((wanted == truth).any()):
        raise BrokenAttack(f"{attack.name}: the challenge must exclude inputs of the class it wants")
