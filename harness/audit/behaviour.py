"""The behaviour test: does a known trigger turn clean pictures into one class, as no random change of its size does?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from attacks.base import Scene, TriggerAttack
from attacks.image.adaptive_patch import AdaptivePatch
from attacks.image.badnets import Badnets
from attacks.image.blended import Blended
from attacks.image.bpp import Bpp
from attacks.image.ftrojan import Ftrojan
from attacks.image.sig import Sig
from attacks.image.wanet import Wanet
from harness.keys.seeds import derive
from tasks.deployed import Victim
from tasks.plugin import BadInput
from tasks.samples import Samples

# Of the suite's triggers those that take no surrogate, at published strengths; those that were found to teach nothing
# at these (their docstrings say so) at one that does.
TRIGGERS: dict[str, TriggerAttack[Tensor]] = {
    "badnets": Badnets(),
    "adaptive_patch": AdaptivePatch(opacities=(1.0, 0.0, 1.0, 0.0), patches=4),
    "blended": Blended(),
    "sig": Sig(),
    "wanet": Wanet(),
    "wanet s=1": Wanet(s=1.0),
    "ftrojan magnitude=100": Ftrojan(magnitude=100.0),
    "bpp levels=3": Bpp(levels=3),
}
COARSE = (1, 2, 4)  # pixels from one random number to the next in a random change: from noise to blotches
HALVINGS = 14  # of the interval in which the size of a random change is sought
LARGEST = 8192.0  # L2 norm, grey levels: of the interval
ENOUGH = 10  # random changes as strong as the trigger after which no more are drawn (Besag and Clifford 1991)
CPU = torch.device("cpu")
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


def stamp(trigger: TriggerAttack[Tensor], scene: Scene, x: Tensor, strength: float, seed: int) -> Tensor:
    """uint8 (N, C, H, W) with so much of the trigger."""
    stamped = trigger.stamp(scene, x, torch.Generator().manual_seed(seed))
    return (x + strength * (stamped.float() - x)).round().clamp(0, 255).to(torch.uint8)


def applicable(scene: Scene, x: Tensor) -> tuple[dict[str, TriggerAttack[Tensor]], dict[str, str]]:
    """The triggers that fit these pictures and change them, and why the others do not."""
    fit, reasons = {}, {}
    for name, trigger in TRIGGERS.items():
        try:
            changed = not torch.equal(stamp(trigger, scene, x, 1.0, 0), x)
        except BadInput as error:
            reasons[name] = str(error)
            continue
        if changed:
            fit[name] = trigger
        else:
            reasons[name] = "changes nothing on these pictures"
    return fit, reasons


def try_triggers(victim: Victim, samples: Samples, plan: Plan, seed: int, step: Step = lambda: None) -> list[Shift]:
    """What every trigger does at every strength, with p values. samples: clean rows, of which the plan's are used.

    The p value of a trigger is the chance that a random change of the same L2 norm, anywhere in the picture, turns as
    many rows into one class. Only triggers that work at full strength (`Plan.works`) are compared, the others are
    never called; all count in the correction.
    """
    tester, pictures = _prepare(victim, samples, plan, seed, step)
    return tester.compare([tester.measure(*which, stamped) for which, stamped in pictures.items()], pictures)


def measure_shares(victim: Victim, samples: Samples, plan: Plan, seed: int) -> Tensor:
    """(triggers, K) what every trigger that fits does at full strength, without p values."""
    tester, pictures = _prepare(victim, samples, replace(plan, strengths=(1.0,)), seed, lambda: None)
    return torch.stack([tester.shares(stamped) for stamped in pictures.values()])


def find_unfit(victim: Victim, samples: Samples) -> dict[str, str]:
    """The triggers that do not fit these pictures, and why."""
    return applicable(_scene(victim, samples), cast(Tensor, samples.inputs)[:1])[1]


def show(name: str, victim: Victim, samples: Samples, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """n clean rows float (n, C, H, W) in [0, 1], and the same with a trigger at full strength."""
    x = cast(Tensor, samples.inputs)[:n]
    stamped = stamp(TRIGGERS[name], _scene(victim, samples), x, 1.0, derive(seed, "stamp", name))
    return x / 255, stamped / 255


def _scene(victim: Victim, samples: Samples) -> Scene:
    # No trigger of the list trains a surrogate, so the scene has no `fit`.
    return Scene(victim.task, samples, None, CPU)  # type: ignore[arg-type]


def _prepare(
    victim: Victim, samples: Samples, plan: Plan, seed: int, step: Step
) -> tuple[_Tester, dict[tuple[str, float], Tensor]]:
    """The clean rows' answers, and the rows stamped with every trigger that fits at every strength."""
    x = cast(Tensor, samples.inputs)[: plan.rows]
    scene = _scene(victim, samples)
    triggers, _ = applicable(scene, x)
    pictures = {
        (name, strength): stamp(trigger, scene, x, strength, derive(seed, "stamp", name))
        for name, trigger in triggers.items()
        for strength in plan.strengths
    }
    return _Tester(victim, x, plan, seed, step), pictures


class _Tester:
    """One network, its clean rows and what it answers to them."""

    def __init__(self, victim: Victim, x: Tensor, plan: Plan, seed: int, step: Step) -> None:
        self.victim, self.x, self.plan, self.seed, self.step = victim, x, plan, seed, step
        self.before = self._answers(x)

    def _answers(self, x: Tensor) -> Tensor:
        samples = Samples(x, torch.zeros(len(x), dtype=torch.int64), torch.arange(len(x)))
        return torch.cat([self.victim.logits(part).argmax(1).cpu() for part in self.victim.batches(samples)])

    def shares(self, x: Tensor) -> Tensor:
        """(K,) of the rows that were not of a class before, how many are now."""
        return moved(self.before, self._answers(x), len(self.victim.task.classes))

    def measure(self, name: str, strength: float, stamped: Tensor) -> Shift:
        shares = self.shares(stamped)
        self.step()
        return Shift(name, strength, float(shares.max()), int(shares.argmax()), shares=[float(s) for s in shares])

    def compare(self, found: list[Shift], pictures: dict[tuple[str, float], Tensor]) -> list[Shift]:
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

    def _with_p(self, shift: Shift, stamped: Tensor) -> Shift:
        """Random changes are drawn until ENOUGH were as strong as the trigger, or all are drawn."""
        seen: list[float] = []
        norms = (stamped.float() - self.x).flatten(1).norm(dim=1)
        as_strong = 0
        for change in random_changes(self.x.shape[1:], self.plan.draws, derive(self.seed, "random", shift.trigger)):
            share = float(self.shares(add(self.x, change, norms)).max())
            self.step()
            seen.append(share)
            as_strong += share >= shift.share
            if as_strong == ENOUGH:
                break
        # Stopped early, the share of those as strong is the p value itself; else the trigger counts as one of them.
        p = as_strong / len(seen) if as_strong == ENOUGH else (1 + as_strong) / (1 + len(seen))
        middle = float(torch.tensor(seen).quantile(0.5))
        return replace(shift, draws=len(seen), random=middle, p=p)


def moved(before: Tensor, after: Tensor, classes: int) -> Tensor:
    """(K,) of the rows (N,) that were not answered with a class before, the share that is now; 0 where all were."""
    others = len(before) - torch.bincount(before, minlength=classes)
    came = torch.bincount(after[after != before], minlength=classes)
    return came / others.clamp(min=1)


def random_changes(shape: Sequence[int], n: int, seed: int) -> Iterator[Tensor]:
    """n directions float32 (C, H, W) of norm 1: Gaussian noise, fine or in blotches, which everything in it decides."""
    rng = torch.Generator().manual_seed(seed)
    c, h, w = shape
    for _ in range(n):
        coarse = COARSE[int(torch.randint(len(COARSE), (), generator=rng))]
        noise = torch.randn(1, c, -(-h // coarse), -(-w // coarse), generator=rng)
        smooth = F.interpolate(noise, size=(h, w), mode="bicubic", align_corners=False)[0]
        yield smooth / smooth.norm()


def add(x: Tensor, change: Tensor, norms: Tensor) -> Tensor:
    """uint8 (N, C, H, W): rows moved along a direction (C, H, W) so far that, clipped, they moved by norms (N,).

    A row that cannot move so far within 0 to 255 moves as far as it can.
    """
    start, low, high = x.float(), torch.zeros(len(x)), torch.full((len(x),), LARGEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        far = ((start + middle[:, None, None, None] * change).clamp(0, 255) - start).flatten(1).norm(dim=1)
        low, high = torch.where(far < norms, middle, low), torch.where(far < norms, high, middle)
    return (start + high[:, None, None, None] * change).clamp(0, 255).round().to(torch.uint8)


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979), in the order given."""
    adjusted, largest = [1.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted
