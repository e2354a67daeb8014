"""Which cells of a grid are run: by name, by label, or a part of all for one of several machines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from harness.errors import BadGrid
from harness.grid.grid import Cell, groups

if TYPE_CHECKING:
    pass


def parse_shard(text: str) -> tuple[int, int]:
    """2/4, the second of four parts, as (1, 4). Raises BadGrid."""
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    part, parts = (int(n) for n in found.groups()) if found else (0, 0)
    if not 1 <= part <= parts:
        raise BadGrid(f"--shard {text!r}: write which part of how many, from 1/4 to 4/4")
    return part - 1, parts


def cells_of_shard(cells: list[Cell], part: int, parts: int) -> list[Cell]:
    """Every `parts`-th victim's cells, the `part`-th first (from 0): no victim is trained for two parts."""
    return [cell for n, group in enumerate(groups(cells)) if n % parts == part for cell in group]


def select_cells(cells: list[Cell], only: Iterable[str], skip: Iterable[str]) -> list[Cell]:
    """The cells that some pattern of `only` fits (all, if there is none) and no pattern of `skip`.

    A pattern (*, ?) fits a cell by its label, task/attack/dose/defense/seed, or by the name of its task, attack or
    defense. Raises BadGrid for a pattern that fits no cell.
    """
    kept = cells
    for option, patterns in {"--only": list(only), "--skip": list(skip)}.items():
        for pattern in patterns:
            if not any(matches(pattern, cell) for cell in cells):
                raise BadGrid(f"{option} {pattern!r}: fits no cell; a cell of this grid is called {cells[0].label}")
        if patterns:
            kept = [c for c in kept if any(matches(p, c) for p in patterns) == (option == "--only")]
    return kept


def matches(pattern: str, cell: Cell) -> bool:
    names = cell.label, cell.task.name, cell.attack.name, cell.defense.name
    return any(fnmatchcase(name, pattern) for name in names)
