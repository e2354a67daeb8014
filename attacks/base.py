"""The attack interface: an attack turns `dose` training rows into poison, and later presents inputs to be misused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Generic, Literal, Protocol, TypeVar, cast
from unicodedata import normalize

import torch
from pydantic import PlainValidator, WithJsonSchema
from torch import Tensor

from attacks._crafting.selection import CANDIDATES, rank_by_forgetting
from tasks.base import Task
from tasks.deployed import Victim
from tasks.plugin import BadInput, NotApplicable, Plugin, options, require_words
from tasks.samples import Challenge, Samples, join

SHOWN = 20  # names of classes in an error
A = TypeVar("A", bound="Attack")
Variants = Mapping[str, Mapping[str, Any]]  # such as {"moved": {"margin": 5}}
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

    # Triggers of the same family that no poison carries, as changes of options by the word in `asr_unseen_<word>`. The
    # harness asks the model with each as well, to see how far the backdoor generalises.
    unseen: ClassVar[Variants] = {}

    clean_label: bool = False  # the harness then checks that no label was changed

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        require_words(cls, "alters", ("poison", "challenge"))

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        """Exactly `dose` poisoned rows; 0 is legal. Raises BadInput when the eligible pool is smaller than the dose."""
        raise NotImplementedError(f"{type(self).__name__} must define poison()")

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge | None:
        """The inputs to be misused, made from clean samples; None if the attack asks for nothing."""
        raise NotImplementedError(f"{type(self).__name__} must define challenge()")


class _NamesClass:
    """Marks the options that name a class of the task."""


def _number_or_name(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError("must be the number of a class, 0 or more, or its name in quotes")


# A class of the task: its number, or its name as a text, so "10" is the class of that name and 10 the eleventh. The
# harness puts the number in the place of a name (`number_classes`) before it calls a plug-in, which sees numbers alone.
ClassRef = Annotated[
    int,
    PlainValidator(_number_or_name),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}),
    _NamesClass(),
]


def named_classes(attack: Attack) -> dict[str, int | str]:
    """The options of an attack that name a class of the task, by option; such as {"target": "spam"}."""
    marked: dict[str, Any] = getattr(type(attack), "__pydantic_fields__", {})
    return {
        option: getattr(attack, option)
        for option, about in marked.items()
        if any(isinstance(mark, _NamesClass) for mark in about.metadata)
    }


def check_classes(task: Task, attack: Attack) -> None:
    """Raises BadInput where the task lacks a class that an option of the attack names or numbers."""
    classes = task.classes
    for option, value in named_classes(attack).items():
        if fault := class_fault(value, classes):
            raise BadInput(f"attacks.{attack.name}.{option}={value!r}: {task.name} has {fault}")


def number_classes(task: Task, attack: A) -> A:
    """The attack with numbers for names of classes. Raises NotApplicable where the task has no class of a name."""
    names = {option: value for option, value in named_classes(attack).items() if isinstance(value, str)}
    if not names:
        return attack
    classes = task.classes
    for option, value in names.items():
        if fault := class_fault(value, classes):
            raise NotApplicable(f"{option}={value!r}: {task.name} has {fault}")
    numbers = {option: classes_named(value, classes)[0] for option, value in names.items()}
    return replace(attack, **numbers)  # type: ignore[type-var]


def target_class(task: Task, attack: Attack) -> tuple[int, str] | None:
    """The number and name of the class that an attack wants; None where its trial says what is wanted, or nothing."""
    target = getattr(attack, "target", None)
    if getattr(attack, "targeted", False) or not isinstance(target, int) or target >= len(task.classes):
        return None
    return target, str(task.classes[target])


def classes_named(name: str, classes: Sequence[str]) -> list[int]:
    """The number of the class of this name, or of all whose name has the same letters but other code points."""
    if name in classes:
        return [classes.index(name)]
    composed = normalize("NFC", name)
    return [i for i, other in enumerate(classes) if normalize("NFC", other) == composed]


def class_fault(value: int | str, classes: Sequence[str]) -> str:
    """Why a number or a name is none of these classes, as in "digits has classes 0 to 9"; "" if it is one."""
    if isinstance(value, int):
        return f"classes 0 to {len(classes) - 1}" if value >= len(classes) else ""
    alike = classes_named(value, classes)
    if len(alike) == 1:
        return ""
    if alike:
        spelt = ", ".join(ascii(classes[i]) for i in alike)
        return f"{len(alike)} classes of that name, which Unicode spells differently; write the one you mean: {spelt}"
    hint = ""
    if near := [] if value.isdecimal() else get_close_matches(value, classes, n=1, cutoff=0.5):
        hint = f"did you mean {near[0]!r}? "
    elif value.isdecimal() and len(value) < 10 and int(value) < len(classes):
        hint = f"for class number {value} leave the quotes out; "
    shown = ", ".join(map(repr, classes[:SHOWN])) + ", ..." * (len(classes) > SHOWN)
    return f"no class of that name; {hint}valid: {shown}"


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

    target: ClassRef = 0  # class that the trigger shall produce
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
