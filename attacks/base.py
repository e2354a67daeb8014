"""The attack interface: an attack turns `dose` training rows into poison, and later presents inputs to be misused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, cast

import torch
from torch import Tensor

from attacks._crafting.selection import CANDIDATES, rank_by_forgetting
from tasks.base import Task
from tasks.deployed import Victim
from tasks.plugin import BadInput, Count, NotApplicable, Plugin, options
from tasks.samples import Challenge, Samples, join

Inputs = TypeVar("Inputs", bound=Tensor | list[str])  # raw inputs of one kind of task, see tasks.samples.Samples


class Fit(Protocol):
    """Train a victim, each content once, see `defenses.base.Case.fit`."""

    def __call__(self, samples: Samples, *, seed: int | None = None, **recipe_changes: Any) -> Victim: ...


@dataclass(frozen=True, eq=False)
class Trial:
    """The task of a targeted attack, see attacks.targeted."""

    target: Samples  # one row of the test set, with its true label
    wanted: int  # the class that the target shall be taken for
    bases: Tensor  # (M,) ids of training rows of that class, to be poisoned in this order


@dataclass(frozen=True)
class Scene:
    """What an attacker sees: the task, the clean training set, and a way to train surrogates (own seeds)."""

    task: Task
    train: Samples
    fit: Fit
    device: torch.device
    trial: Trial | None = None  # for targeted attacks only


@dataclass(frozen=True)
class Poison:
    """`dose` poisoned rows. replaces: (dose,) ids of the training rows that they replace; None adds them."""

    samples: Samples
    replaces: Tensor | None = None


class Attack(Plugin):
    """One poisoning method. Doses are nested: the first 5 poisons of dose 10 are the 5 poisons of dose 5."""

    # What of it the victim must read otherwise than clean rows: the harness refuses a cell where it does not. An attack
    # that leaves its challenge as it is names "poison" alone, one that changes labels only nothing.
    alters: ClassVar[tuple[str, ...]] = ("poison", "challenge")

    clean_label: bool = False  # the harness then checks that no label was changed

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        """Exactly `dose` poisoned rows; 0 is legal. Raises BadInput when the eligible pool is smaller than the dose."""
        raise NotImplementedError(f"{type(self).__name__} must define poison()")

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge | None:
        """The inputs to be misused, made from clean samples; None if the attack asks for nothing."""
        raise NotImplementedError(f"{type(self).__name__} must define challenge()")


def check_target(target: int, task: Task) -> int:
    """The target class; raises NotApplicable where the task has no such class."""
    if target >= len(task.classes):
        raise NotApplicable(f"target={target}: {task.name} has classes 0 to {len(task.classes) - 1}")
    return target


@options
class TriggerAttack(Attack, Generic[Inputs]):
    """A backdoor: stamp a trigger on training rows labelled as the target, then on test inputs of the other classes.

    A trigger attack writes one method, `stamp`, for inputs of one type: TriggerAttack[Tensor] or
    TriggerAttack[list[str]].
    """

    target: Count = 0  # class that the trigger shall produce
    clean_label: bool = False  # True: poison only rows of the target class, and keep their labels
    selection: Literal["random", "forgetting"] = "random"  # which eligible rows; see attacks._crafting.selection

    # No type can say it: equal inputs and an equal rng must give equal outputs.
    def stamp(self, scene: Scene, inputs: Inputs, rng: torch.Generator) -> Inputs:
        """The same inputs with the trigger, of the same type and shape; the argument itself must not change.

        scene is there because audio triggers need the sample rate and optimised triggers a surrogate.
        """
        raise NotImplementedError(f"{type(self).__name__} must define stamp()")

    def stamp_samples(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Samples:
        """The same rows with the trigger on their inputs."""
        inputs = cast(Inputs, samples.inputs)  # `modalities` says that they are of this type
        return samples.with_inputs(self.stamp(scene, inputs, rng))

    def eligible(self, scene: Scene) -> Tensor:
        """(M,) positions of training rows that may be poisoned."""
        of_target = scene.train.targets == check_target(self.target, scene.task)
        return (of_target if self.clean_label else ~of_target).nonzero().flatten()

    def pool(self, scene: Scene, dose: int) -> Tensor:
        """The eligible positions; raises BadInput where they are fewer than the dose."""
        pool = self.eligible(scene)
        if dose > len(pool):
            kind = "of the target class" if self.clean_label else "outside the target class"
            raise BadInput(
                f"dose={dose}: the eligible pool of {self.name} on {scene.task.name} has {len(pool)} rows {kind}"
            )
        return pool

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        pool = self.pool(scene, dose)
        positions = pool[torch.randperm(len(pool), generator=rng)]
        seeds = torch.randint(2**62, (len(pool),), generator=rng)
        if self.selection == "forgetting" and dose:
            order = self._order_by_forgetting(scene, positions, seeds)
            positions, seeds = positions[order], seeds[order]
        poisoned = self._poison_rows(scene, positions[:dose], seeds[:dose])
        return Poison(poisoned, replaces=poisoned.ids)

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        others = samples.select(samples.targets != check_target(self.target, scene.task))
        stamped = self.stamp_samples(scene, others, rng)
        return Challenge(stamped, torch.full_like(others.targets, self.target), others.targets)

    def stamp_each(self, scene: Scene, samples: Samples, seeds: Tensor) -> Samples:
        """The same rows with the trigger, each drawn from its own seed (N,).

        So what is drawn for row 3 does not depend on how many rows follow, and doses are nested.
        """
        rows = [
            self.stamp_samples(scene, samples.select([row]), torch.Generator().manual_seed(seed)).inputs
            for row, seed in enumerate(seeds.tolist())
        ]
        return samples.with_inputs(join(rows)) if rows else samples

    def _poison_rows(self, scene: Scene, positions: Tensor, seeds: Tensor) -> Samples:
        """The training rows at these positions with trigger and target label."""
        stamped = self.stamp_each(scene, scene.train.select(positions), seeds)
        return replace(stamped, targets=torch.full_like(stamped.targets, self.target))

    def _order_by_forgetting(self, scene: Scene, positions: Tensor, seeds: Tensor) -> Tensor:
        """(M,) an order of the eligible rows: the first CANDIDATES, most often forgotten first, then the rest."""
        candidates = positions[:CANDIDATES]
        best = rank_by_forgetting(scene, self._poison_rows(scene, candidates, seeds[:CANDIDATES]), candidates)
        return torch.cat([best, torch.arange(len(best), len(positions))])
