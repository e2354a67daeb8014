"""Which cells of a grid run: selected by name or label, or one machine's share of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from harness.errors import BadGrid
from harness.grid.grid import Cell, groups


def parse_shard(text: str) -> tuple[int, int]:
    """2/4, the second of four parts, as (1, 4). Raises BadGrid."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    part, parts = (int(n) for n in match.groups()) if match else (0, 0)
    if not 1 <= part <= parts:
        raise BadGrid(f"--shard {text!r}: write which part of how many, from 1/4 to 4/4")
    return part - 1, parts


def cells_of_shard(cells: list[Cell], part: int, parts: int) -> list[Cell]:
    """The cells of every `parts`-th victim, from the `part`-th (from 0) on: no two parts train the same victim."""
    return [cell for n, group in enumerate(groups(cells)) if n % parts == part for cell in group]


def select_cells(cells: list[Cell], only: Iterable[str], skip: Iterable[str]) -> list[Cell]:
    """The cells that match a pattern of `only` (or all, if there is none) and no pattern of `skip`.

    A pattern matches the label of a cell, task/attack/dose/defense/seed, or the name or label of its task, attack or
    defense. * and ? stand for any characters; brackets for themselves, and [0-2] for one of 0 to 2 only where nothing
    is called so. Raises BadGrid for a pattern that matches no cell, and if no cell is left.
    """
    selected = cells
    for option, patterns in {"--only": list(only), "--skip": list(skip)}.items():
        if patterns:
            named = set().union(*(find_matches(option, pattern, cells) for pattern in patterns))
            selected = [cell for cell in selected if (cell.key in named) == (option == "--only")]
    if cells and not selected:
        raise BadGrid("--only, --skip: no cell is left")
    return selected


def find_matches(option: str, pattern: str, cells: list[Cell]) -> set[str]:
    """The keys of the cells that match a pattern. Raises BadGrid if there are none."""
    names = {cell.key: names_of(cell) for cell in cells}
    for tried in (pattern.replace("[", "[[]"), pattern):
        if found := {key for key, its in names.items() if any(fnmatchcase(name, tried) for name in its)}:
            return found
    known = dict.fromkeys(name for its in names.values() for name in its)
    other = next((name for name in known if name.lower() == pattern.strip().lower()), "")
    hint = f"did you mean {other!r}? " if other else ""
    raise BadGrid(f"{option} {pattern!r}: fits no cell; {hint}a cell of this grid is called {cells[0].label}")


def names_of(cell: Cell) -> tuple[str, ...]:
    """What a pattern may match."""
    plugged = cell.task, cell.attack, cell.defense
    return cell.label, *(spec.name for spec in plugged), *(spec.label for spec in plugged)
