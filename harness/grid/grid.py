"""What a grid and a cell are, and the cells that a grid expands to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from harness.errors import BadGrid
from harness.keys.source import look_again, source_hash
from harness.plugins.registry import KINDS, Spec, create, entry, fits
from tasks.plugin import BadInput, Plugin

# The code of every cell, beside that of its plug-ins: a key covers these files and all that they import from attacks/,
# defenses/ and tasks/. What else they import from the harness stores, shows or looks up, and changes no number.
GRADING = (
    *(
        f"harness.cell.{name}"
        for name in (
            "steps", "case", "arguments", "answers", "metrics", "stealth", "reach", "retune", "poison", "train",
            "graphs", "dp",
        )
    ),
    "harness.keys.seeds",
)  # fmt: skip
RETUNE_ROWS = 200  # training rows of the next owner, see harness.cell.retune


@dataclass(frozen=True)
class Grid:
    """task x attack x dose x defense x seed. Attacks meet only tasks of their modality; defenses meet every task.

    also: further grids that run with this one. retune: so many poisons are among the rows on which the next owner of
    every deployed model trains it on; none for no such owner.
    """

    tasks: tuple[Spec, ...]
    attacks: tuple[Spec, ...]
    doses: tuple[int, ...]
    defenses: tuple[Spec, ...]
    seeds: tuple[int, ...]
    timeout: float = 3600.0  # seconds a cell may take
    description: str = ""
    also: tuple[Grid, ...] = ()
    retune: tuple[int, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One measurement. `key` changes with the options, the seed and the source of everything that makes the result."""

    key: str
    task: Spec
    attack: Spec
    dose: int
    defense: Spec
    seed: int
    retune: tuple[int, ...] = ()  # of its grid
    made_of: tuple[str, ...] = ()  # content of the code and files of task, attack and defense when it was planned

    @property
    def label(self) -> str:
        return f"{self.task.label}/{self.attack.label}/{self.dose}/{self.defense.label}/{self.seed}"

    @property
    def columns(self) -> dict[str, Any]:
        """What identifies it, as plan.json and tables of cells have it."""
        return {
            "key": self.key, "label": self.label, "task": self.task.label, "task_name": self.task.name,
            "attack": self.attack.label, "attack_name": self.attack.name, "dose": self.dose,
            "defense": self.defense.label, "defense_name": self.defense.name, "seed": self.seed,
        }  # fmt: skip

    @property
    def group(self) -> tuple[str, str, int, int]:
        """Cells of a group share one poison set and one undefended victim."""
        return self.task.label, self.attack.label, self.dose, self.seed


def expand(grid: Grid) -> list[Cell]:
    """Every cell once, ordered so that cells that share a victim follow each other; attack `none` has dose 0 only."""
    look_again()
    return list({cell.key: cell for part in (grid, *grid.also) for cell in _expand_part(part)}.values())


def _expand_part(grid: Grid) -> list[Cell]:
    from harness.keys.content import content_hash, digest  # imported late: a worker must ignore Ctrl-C before torch

    plugins = {(kind, spec): _create(kind, spec) for kind in KINDS for spec in getattr(grid, kind)}
    try:
        hashes = {name: digest(plugin) for name, plugin in plugins.items()}
        made = {name: content_hash(plugin) for name, plugin in plugins.items()}
        grading = source_hash(*GRADING)
    except (TypeError, BadInput) as error:
        raise BadGrid(str(error)) from None
    for attack in grid.attacks:
        _check_target(plugins["attacks", attack], [plugins["tasks", t] for t in grid.tasks if meets(t, attack)])
    cells = []
    for task, attack in ((task, attack) for task in grid.tasks for attack in grid.attacks if meets(task, attack)):
        made_of = made["tasks", task], made["attacks", attack]
        stem = grading + hashes["tasks", task] + hashes["attacks", attack] + (f":{grid.retune}" if grid.retune else "")
        for dose in (0,) if attack.name == "none" else grid.doses:
            for seed in grid.seeds:
                prefix = hashlib.sha256(f"{stem}:{dose}:{seed}:".encode())
                for defense in grid.defenses:
                    key = prefix.copy()
                    key.update(hashes["defenses", defense].encode())
                    whole = (*made_of, made["defenses", defense])
                    cells.append(Cell(key.hexdigest()[:32], task, attack, dose, defense, seed, grid.retune, whole))
    return cells


def meets(task: Spec, attack: Spec) -> bool:
    """Whether the attack is made for the task's modality."""
    return fits(entry("tasks", task.name).modalities[0], entry("attacks", attack.name).modalities)


def plugin_names(cells: Iterable[Cell]) -> set[str]:
    """The names of the tasks, attacks and defenses of these cells."""
    return {spec.name for cell in cells for spec in (cell.task, cell.attack, cell.defense)}


def groups(cells: Iterable[Cell]) -> Iterator[list[Cell]]:
    """Successive cells that share a victim, as one list each."""
    group: list[Cell] = []
    for cell in cells:
        if group and cell.group != group[0].group:
            yield group
            group = []
        group.append(cell)
    if group:
        yield group


def _create(kind: str, spec: Spec) -> Plugin:
    try:
        return create(kind, spec.name, dict(spec.options))
    except BadInput as error:
        raise BadGrid(str(error)) from None


def _check_target(attack: Any, tasks: list[Any]) -> None:
    """A target class that no task has is a mistake; where some have it, it is not applicable to the others."""
    from attacks.base import class_fault, named_classes  # imported late: torch, before which a worker ignores Ctrl-C

    classes = {task.name: type(task).classes for task in tasks}
    if not all(isinstance(names, tuple) and names for names in classes.values()):
        return  # read from a user's files
    target = getattr(attack, "target", None)
    wanted = {"target": target} if isinstance(target, int) else {}
    for option, value in (wanted | named_classes(attack)).items():
        faults = {name: class_fault(value, names) for name, names in classes.items()}
        if all(faults.values()):
            valid = ", ".join(f"{name} has {fault}" for name, fault in faults.items())
            raise BadGrid(f"attacks.{attack.name}.{option}={value!r}: {valid}")
