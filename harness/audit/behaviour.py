"""The behaviour test: does a known trigger turn clean rows into one class, as no random change of its size does?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from attacks.base import Scene, TriggerAttack
from harness.audit.media import MEDIA, TRIGGERS, Inputs, Triggers
from harness.keys.seeds import derive
from harness.report import compare
from tasks.deployed import Victim
from tasks.plugin import BadInput, NotApplicable
from tasks.samples import Samples

CPU = torch.device("cpu")
ENOUGH = 10  # random changes as strong as the trigger after which no more are drawn (Besag and Clifford 1991)
Step = Callable[[], None]  # called after each batch of rows


@dataclass(frozen=True)
class Plan:
    """How much is done. draws: random changes for each trigger and strength, at most."""

    rows: int = 100
    strengths: tuple[float, ...] = (1.0, 0.5, 0.25)  # parts of the way from the clean row to the stamped one
    draws: int = 999
    works: float = 0.5  # share of rows that a trigger at full strength must turn to be called, as ED50 has it
    level: float = 0.05
    stop_at_first: bool = False  # after the first trigger that is called, the others are not tried


@dataclass(frozen=True)
class Shift:
    """What one trigger does at one strength. p is 1 where no random change was drawn, as nothing depends on it."""

    trigger: str
    strength: float
    share: float  # of rows not answered with the class before that are answered with it now
    target: int  # that class
    draws: int = 0
    random: float = 0.0  # the median share of the random changes
    p: float = 1.0
    adjusted: float = 1.0  # by Holm, over all triggers and strengths
    shares: list[float] = field(default_factory=list)  # the same of every class


def stamp(trigger: TriggerAttack[Any], scene: Scene, x: Inputs, strength: float, seed: int) -> Inputs:
    """The same inputs with so much of the trigger."""
    stamped = trigger.stamp(scene, x, torch.Generator().manual_seed(seed))
    return MEDIA[scene.task.modality].weaken(scene.task, x, stamped, strength)


def applicable(scene: Scene, x: Inputs) -> tuple[Triggers, dict[str, str]]:
    """The triggers that fit these inputs and change them, and why the others do not."""
    fit: Triggers = {}
    reasons: dict[str, str] = {}
    for name, trigger in TRIGGERS[scene.task.modality].items():
        try:
            stamped = stamp(trigger, scene, x, 1.0, 0)
        except (BadInput, NotApplicable) as error:
            reasons[name] = str(error)
            continue
        same = torch.equal(stamped, cast(Tensor, x)) if isinstance(stamped, Tensor) else stamped == x
        if same:
            reasons[name] = "changes nothing here"
        else:
            fit[name] = trigger
    return fit, reasons


def try_triggers(victim: Victim, samples: Samples, plan: Plan, seed: int, step: Step = lambda: None) -> list[Shift]:
    """What every trigger does at every strength, with p values. samples: clean rows, of which the plan's are used.

    The p value of a trigger is the chance that a random change of the same size (see harness.audit.media) turns as many
    rows into one class. Only triggers that work at full strength (`Plan.works`) are compared, the others are
    never called; all count in the correction.
    """
    tester, pictures = _prepare(victim, samples, plan, seed, step)
    return tester.compare([tester.measure(*which, stamped) for which, stamped in pictures.items()], pictures)


def measure_shares(victim: Victim, samples: Samples, plan: Plan, seed: int) -> Tensor:
    """(triggers, K) what every trigger that fits does at full strength, without p values."""
    tester, pictures = _prepare(victim, samples, replace(plan, strengths=(1.0,)), seed, lambda: None)
    return torch.stack([tester.shares(stamped) for stamped in pictures.values()])


def find_unfit(victim: Victim, samples: Samples) -> dict[str, str]:
    """The triggers that do not fit these rows, and why."""
    return applicable(_scene(victim, samples), samples.inputs[:1])[1]


def show(name: str, victim: Victim, samples: Samples, n: int, seed: int) -> tuple[Inputs, Inputs]:
    """n clean rows, and the same with a trigger at full strength."""
    x, trigger = samples.inputs[:n], TRIGGERS[victim.task.modality][name]
    return x, stamp(trigger, _scene(victim, samples), x, 1.0, derive(seed, "stamp", name))


def _scene(victim: Victim, samples: Samples) -> Scene:
    # No trigger of the list trains a surrogate, so the scene has no `fit`.
    return Scene(victim.task, samples, None, CPU)  # type: ignore[arg-type]


def _prepare(
    victim: Victim, samples: Samples, plan: Plan, seed: int, step: Step
) -> tuple[_Tester, dict[tuple[str, float], Inputs]]:
    """The clean rows' answers, and the rows stamped with every trigger that fits at every strength."""
    x = samples.inputs[: plan.rows]
    scene = _scene(victim, samples)
    triggers, _ = applicable(scene, x)
    pictures = {
        (name, strength): stamp(trigger, scene, x, strength, derive(seed, "stamp", name))
        for name, trigger in triggers.items()
        for strength in (plan.strengths if MEDIA[victim.task.modality].graded else (1.0,))
    }
    return _Tester(victim, x, plan, seed, step), pictures


class _Tester:
    """One network, its clean rows and what it answers to them."""

    def __init__(self, victim: Victim, x: Inputs, plan: Plan, seed: int, step: Step) -> None:
        self.victim, self.x, self.plan, self.seed, self.step = victim, x, plan, seed, step
        self.before = self._answers(x)

    def _answers(self, x: Inputs) -> Tensor:
        samples = Samples(x, torch.zeros(len(x), dtype=torch.int64), torch.arange(len(x)))
        return torch.cat([self.victim.logits(part).argmax(1).cpu() for part in self.victim.batches(samples)])

    def shares(self, x: Inputs) -> Tensor:
        """(K,) of the rows that were not of a class before, how many are now."""
        return moved(self.before, self._answers(x), len(self.victim.task.classes))

    def measure(self, name: str, strength: float, stamped: Inputs) -> Shift:
        shares = self.shares(stamped)
        self.step()
        return Shift(name, strength, float(shares.max()), int(shares.argmax()), shares=[float(s) for s in shares])

    def compare(self, found: list[Shift], pictures: dict[tuple[str, float], Inputs]) -> list[Shift]:
        """The same shifts with p values."""
        work = {s.trigger for s in found if s.strength == max(self.plan.strengths) and s.share >= self.plan.works}
        order = sorted(range(len(found)), key=lambda i: (-found[i].share * found[i].strength ** -0.5, i))
        stop = False
        for i in order:
            if found[i].trigger in work and not stop:
                found[i] = self._with_p(found[i], pictures[found[i].trigger, found[i].strength])
                stop = self.plan.stop_at_first and found[i].p * len(found) <= self.plan.level
        adjusted = holm([shift.p for shift in found])
        return [replace(shift, adjusted=p) for shift, p in zip(found, adjusted, strict=True)]

    def _with_p(self, shift: Shift, stamped: Inputs) -> Shift:
        """Random changes are drawn until ENOUGH were as strong as the trigger, or all are drawn."""
        task, seed = self.victim.task, derive(self.seed, "random", shift.trigger)

        def draw() -> Iterator[float]:
            for changed in MEDIA[task.modality].change(task, self.x, stamped, self.plan.draws, seed):
                yield float(self.shares(changed).max())
                self.step()

        p, seen = monte_carlo(shift.share, draw())
        return replace(shift, draws=len(seen), random=median(seen), p=p)


def monte_carlo(share: float, random: Iterable[float]) -> tuple[float, list[float]]:
    """The p value of a share beside those of random changes, and these; no more are drawn once ENOUGH are as large."""
    seen: list[float] = []
    as_strong = 0
    for other in random:
        seen.append(other)
        as_strong += other >= share
        if as_strong == ENOUGH:
            # Stopped early, the share of those as strong is the p value itself; else the trigger counts as one of them.
            return as_strong / len(seen), seen
    return (1 + as_strong) / (1 + len(seen)), seen


def moved(before: Tensor, after: Tensor, classes: int) -> Tensor:
    """(K,) of the rows (N,) that were not answered with a class before, the share that is now; 0 where all were."""
    others = len(before) - torch.bincount(before, minlength=classes)
    came = torch.bincount(after[after != before], minlength=classes)
    return came / others.clamp(min=1)


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for their number, in the order given."""
    adjusted: list[float] = compare.holm(np.array(p, dtype=float)).tolist()
    return adjusted
