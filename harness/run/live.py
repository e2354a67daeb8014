"""The view of a run on a terminal: how far it is, how fast, its memory, and what every worker is doing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.console import duration
from harness.run import memory
from harness.run.progress import Progress, Running

MEASURE_EVERY = 2.0  # seconds between two looks at the memory
ROWS = 16  # workers shown


class LiveView:
    """Draws itself anew at every refresh, so that times advance while no cell ends."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.memory: dict[int, int] = {}
        self.gpus: list[memory.Gpu] = []
        self.last_measured = -MEASURE_EVERY

    def __rich__(self) -> RenderableType:
        now = time.monotonic()
        if now - self.last_measured >= MEASURE_EVERY:
            self.last_measured, self.memory, self.gpus = now, memory.process_memory(), memory.gpu_memory()
        running = list(self.progress.running.values())  # a copy: cells begin and end in another thread
        parts = [self._bar(), self._pace(now), self._memory(), self._workers(running[:ROWS], now)]
        if len(running) > ROWS:
            parts.append(Text(f"and {len(running) - ROWS} more workers"))
        return Group(*parts)

    def _bar(self) -> RenderableType:
        ended, total = self.progress.counts.total(), self.progress.total
        grid = Table.grid(padding=(0, 1))
        grid.add_row(ProgressBar(total, ended, width=30), Text(f"{ended}/{total} cells, {self.progress.counts_text()}"))
        return grid

    def _pace(self, now: float) -> Text:
        minutes = (now - self.progress.start) / 60
        pace = f"{self.progress.counts.total() / minutes:.1f} cells a minute" if minutes else ""
        return Text(f"{pace}, {duration(60 * minutes)} so far, {self.progress.time_left()}")

    def _memory(self) -> Text:
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
            size = self.memory.get(cell.worker)
            table.add_row(str(cell.worker), _gib(size) if size else "", duration(now - cell.since), Text(cell.label))
        return table


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


@contextmanager
def show_progress(console: Console, total: int) -> Iterator[Progress]:
    """Show a run of so many cells, live where the console can draw; the caller passes events to `update`."""
    notebook = console.is_jupyter and find_spec("ipywidgets") is not None  # without them rich shows nothing
    if not (console.is_terminal or notebook):
        yield Progress(console, total)
        return
    progress = Progress(console, total, live=True)
    with Live(LiveView(progress), console=console, refresh_per_second=2):
        yield progress
