"""How much of a grid is run: which cells, for how long, and how many failures it may have."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from harness.grid import BadGrid, Cell, groups

if TYPE_CHECKING:
    from collections.abc import Generator

    from harness.executors import Event

UNITS = {"h": 3600, "m": 60, "s": 1}


def seconds(text: str) -> float:
    """2h, 1h30m, 90s. Raises BadGrid."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    total = sum(int(n or 0) * unit for n, unit in zip(found.groups(), UNITS.values(), strict=True)) if found else 0
    if not total:
        raise BadGrid(f"--time-budget {text!r}: write hours, minutes, seconds: 2h, 1h30m or 90s")
    return float(total)


def shard(text: str) -> tuple[int, int]:
    """2/4, the second of four parts, as (1, 4). Raises BadGrid."""
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    part, parts = (int(n) for n in found.groups()) if found else (0, 0)
    if not 1 <= part <= parts:
        raise BadGrid(f"--shard {text!r}: write which part of how many, from 1/4 to 4/4")
    return part - 1, parts


def of_shard(cells: list[Cell], part: int, parts: int) -> list[Cell]:
    """Every `parts`-th victim's cells, the `part`-th first (from 0): no victim is trained for two parts."""
    return [cell for n, group in enumerate(groups(cells)) if n % parts == part for cell in group]


def chosen(cells: list[Cell], only: Iterable[str], skip: Iterable[str]) -> list[Cell]:
    """The cells that some pattern of `only` fits (all, if there is none) and no pattern of `skip`.

    A pattern (*, ?) fits a cell by its label, task/attack/dose/defense/seed, or by the name of its task, attack or
    defense. Raises BadGrid for a pattern that fits no cell.
    """
    kept = cells
    for option, patterns in {"--only": list(only), "--skip": list(skip)}.items():
        for pattern in patterns:
            if not any(fits(pattern, cell) for cell in cells):
                raise BadGrid(f"{option} {pattern!r}: fits no cell; a cell of this grid is called {cells[0].label}")
        if patterns:
            kept = [c for c in kept if any(fits(p, c) for p in patterns) == (option == "--only")]
    return kept


def fits(pattern: str, cell: Cell) -> bool:
    names = cell.label, cell.task.name, cell.attack.name, cell.defense.name
    return any(fnmatchcase(name, pattern) for name in names)


@dataclass
class Limits:
    """Ends a run early; what is not finished then is not recorded, and the same command goes on from there."""

    seconds: float | None = None  # stop after so long; with --jobs 0 once the cell at hand has ended
    failures: int | None = None  # stop at so many failed or timed-out cells
    reached: str = ""  # why it ended, if it did

    def watch(self, events: Generator[Event | None, None, None]) -> Iterator[Event]:
        start, failed = time.monotonic(), 0
        with closing(events):  # which stops the workers
            for event in events:
                if event is not None:
                    yield event
                    failed += event.record is not None and event.record.status in ("failed", "timed out")
                if self.failures is not None and failed >= self.failures:
                    self.reached = f"{failed} cells failed (--max-failures)"
                elif self.seconds is not None and time.monotonic() - start > self.seconds:
                    self.reached = "the time is up (--time-budget)"
                if self.reached:
                    return
