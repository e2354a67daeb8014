"""The view of a run on a terminal: how far it is, how fast, what it takes, and what every worker is doing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.console import duration
from harness.run import memory
from harness.run.progress import Running, Watcher

if TYPE_CHECKING:
    from harness.run.progress import Running

MEASURED = 2.0  # seconds between two looks at the memory
ROWS = 16  # workers shown


class View:
    """Drawn anew at every refresh, so that times go on while no cell ends."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.memory: dict[int, int] = {}
        self.gpus: list[memory.Gpu] = []
        self.measured = -MEASURED

    def __rich__(self) -> RenderableType:
        now = time.monotonic()
        if now - self.measured >= MEASURED:
            self.measured, self.memory, self.gpus = now, memory.processes(), memory.gpus()
        running = list(self.watcher.running.values())  # at once: cells begin and end in another thread
        parts = [self._bar(), self._pace(now), self._taken(), self._workers(running[:ROWS], now)]
        if len(running) > ROWS:
            parts.append(Text(f"and {len(running) - ROWS} more workers"))
        return Group(*parts)

    def _bar(self) -> RenderableType:
        ended, total = self.watcher.counts.total(), self.watcher.total
        grid = Table.grid(padding=(0, 1))
        grid.add_row(ProgressBar(total, ended, width=30), Text(f"{ended}/{total} cells, {self.watcher.note()}"))
        return grid

    def _pace(self, now: float) -> Text:
        minutes = (now - self.watcher.start) / 60
        pace = f"{self.watcher.counts.total() / minutes:.1f} cells a minute" if minutes else ""
        return Text(f"{pace}, {duration(60 * minutes)} so far, {self.watcher.left()}")

    def _taken(self) -> Text:
        driver = self.memory.get(os.getpid(), 0)
        words = [f"memory: driver {_gib(driver)}, workers {_gib(sum(self.memory.values()) - driver)}"]
        words += [f"GPU {i}: {_gib(gpu.used)} of {_gib(gpu.total)}" for i, gpu in enumerate(self.gpus)]
        return Text(", ".join(words))

    def _workers(self, running: list[Running], now: float) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("worker", "memory", "for"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("cell", overflow="fold")  # its end says most
        for cell in sorted(running, key=lambda cell: cell.worker):
            taken = self.memory.get(cell.worker)
            table.add_row(str(cell.worker), _gib(taken) if taken else "", duration(now - cell.since), Text(cell.label))
        return table


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


@contextmanager
def watching(console: Console, total: int) -> Iterator[Watcher]:
    """A watcher to feed events to."""
    notebook = console.is_jupyter and find_spec("ipywidgets") is not None  # without them rich shows nothing
    if not (console.is_terminal or notebook):
        yield Watcher(console, total)
        return
    from rich.live import Live

    from harness.run.live import View

    watcher = Watcher(console, total, live=True)
    with Live(View(watcher), console=console, refresh_per_second=2):
        yield watcher
