"""Crafting a poison set, checking it, and putting it where nothing but its content gives it away."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.base import Attack, Poison, Scene
from harness.errors import BrokenAttack
from tasks.base import Task
from tasks.plugin import BadInput
from tasks.samples import Challenge, Samples
from tasks.validate import describe, find_flaw, is_finite, is_plain


@dataclass(frozen=True)
class Poisoned:
    """The training set that a victim gets, and what only the harness knows about it."""

    train: Samples
    mask: Tensor  # (N,) bool: which rows are poison


def craft_poison(attack: Attack, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
    """Ask the attack for `dose` poisons and check what came back; raises BrokenAttack."""
    if dose < 0:
        raise BadInput(f"dose={dose}: a dose is a number of samples, 0 or more")
    poison: object = attack.poison(scene, dose, rng)
    if not isinstance(poison, Poison):
        raise BrokenAttack(f"{attack.name}.poison returned {describe(poison)}; return an attacks.base.Poison")
    check_rows(poison.samples, scene.task, "the poison", attack.name)
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
    known = like.inputs
    alike = isinstance(inputs, Tensor) and inputs.dtype == known.dtype and inputs.device == known.device
    if not isinstance(inputs, Tensor) or not alike or inputs.shape[1:] != known.shape[1:]:
        got = f"{inputs.dtype} {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        got += f" on {inputs.device}" if isinstance(inputs, Tensor) and inputs.device != known.device else ""
        raise BrokenAttack(f"{who}: inputs are {got}, expected {like.inputs.dtype} (N, {tuple(like.inputs.shape[1:])})")
    if inputs.numel() and not is_finite(inputs):
        raise BrokenAttack(f"{who}: inputs are not finite")
    return samples.with_inputs(task.quantise(inputs.detach()))


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
    return Poisoned(replace(merged, ids=torch.arange(total)), order >= len(train))


def check_rows(samples: object, task: Task, name: str, who: str, labels: bool = True) -> None:
    """Raises BrokenAttack, naming `who` made them, unless these are samples with a sound target for each input.

    labels: targets are in the range of the task's.
    """
    flaw = find_flaw(samples, task, name, raw=False, labels=labels)
    if flaw:
        raise BrokenAttack(f"{who}: {flaw}")


def _check_poison(attack: Attack, scene: Scene, dose: int, poison: Poison) -> None:
    samples, replaces, train = poison.samples, poison.replaces, scene.train
    if len(samples) != dose:
        raise BrokenAttack(f"{attack.name}: asked for {dose} poisons, got {len(samples)}")
    if replaces is None:
        return
    if not is_plain(replaces, torch.int64) or len(replaces) != dose or len(set(replaces.tolist())) != dose:
        raise BrokenAttack(f"{attack.name}: replaces must name {dose} different ids, int64 ({dose},): it is "
            f"{describe(replaces)}")  # fmt: skip
    unknown = sorted(set(replaces.tolist()) - set(train.ids.tolist()))
    if unknown:
        raise BrokenAttack(f"{attack.name}: replaces names id {unknown[0]}, which no row of scene.train has; "
            "take them from scene.train.ids")  # fmt: skip
    if attack.clean_label and not torch.equal(train.targets[train.positions(replaces)], samples.targets):
        raise BrokenAttack(f"{attack.name}: is clean-label but changed a label")


def check_challenge(attack: Attack, task: Task, challenge: object) -> None:
    """Raises BrokenAttack where a part is of another type, length or range than the task judges, or where an input's
    true answer is already the wanted one; and BadInput for a challenge without inputs, which has no share."""
    who = f"{attack.name}.challenge"
    if not isinstance(challenge, Challenge):
        raise BrokenAttack(f"{who} returned {describe(challenge)}; return a tasks.samples.Challenge, or None")
    for name in ("inputs", "plain", "near"):
        samples = getattr(challenge, name)
        if samples is not None or name == "inputs":
            check_rows(samples, task, name, who, labels=False)
    wanted, truth, n = challenge.wanted, challenge.truth, len(challenge.inputs)
    for name, answers in {"wanted": wanted, "truth": truth}.items():
        flaw = _flaw_of_answers(answers, task, n) if name == "wanted" or answers is not None else ""
        if flaw:
            raise BrokenAttack(f"{who}: {name} {flaw}")
    if any(part is not None and len(part) != n for part in (wanted, truth, challenge.plain, challenge.near)):
        raise BrokenAttack(f"{who}: inputs, wanted, truth, plain and near differ in length")
    if not n:
        target = f" outside target={attack.target}" if hasattr(attack, "target") else ""
        raise BadInput(
            f"{attack.name}: its challenge is empty: the test set has no row{target} to be misused; add test rows, or "
            "change the attack's target"
        )
    if truth is not None and isinstance(wanted, Tensor) and bool((wanted == truth).any()):
        raise BrokenAttack(f"{attack.name}: the challenge must exclude inputs of the class it wants")


def _flaw_of_answers(answers: object, task: Task, n: int) -> str:
    """What is wrong with wanted or true answers: classes, and of a generative task also patterns and templates."""
    k = len(task.classes)
    if is_plain(answers, torch.int64):
        bad = [answer for answer in answers.tolist() if not 0 <= answer < k]  # type: ignore[attr-defined]
        return f"names class {bad[0]}; {task.name} has 0 to {k - 1}" if bad else ""
    expected = f"expected classes, int64 ({n},)"
    if task.referee() is not None or type(task).deploy is not Task.deploy:
        expected += f", finite templates ({n}, ...) or a list of {n} patterns"
        if isinstance(answers, list) and all(isinstance(pattern, str) for pattern in answers):
            return next(filter(None, map(_flaw_of_pattern, answers)), "")
        if isinstance(answers, Tensor) and answers.ndim > 1 and answers.device.type == "cpu" and is_finite(answers):
            return ""
    return f"is {describe(answers)}, {expected}"


def _flaw_of_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        return f"has {pattern!r}, which is no regular expression ({error})"
    return ""
