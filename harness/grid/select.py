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

    A pattern (*, ?) matches the label of a cell, task/attack/dose/defense/seed, or the name of its task, attack or
    defense. Raises BadGrid for a pattern that matches no cell.
    """
    selected = cells
    for option, patterns in {"--only": list(only), "--skip": list(skip)}.items():
        for pattern in patterns:
            if not any(matches(pattern, cell) for cell in cells):
                raise BadGrid(f"{option} {pattern!r}: fits no cell; a cell of this grid is called {cells[0].label}")
        if patterns:
            selected = [c for c in selected if any(matches(p, c) for p in patterns) == (option == "--only")]
    return selected


def matches(pattern: str, cell: Cell) -> bool:
    names = cell.label, cell.task.name, cell.attack.name, cell.defense.name
    return any(fnmatchcase(name, pattern) for name in names)
