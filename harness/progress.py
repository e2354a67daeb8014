"""What a run shows: a live view (harness/live.py) on a terminal and in a notebook, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NamedTuple

from rich.console import Console

from harness.executors import Event

EVERY = 10.0  # seconds between lines where there is no terminal


class Running(NamedTuple):
    label: str  # of the cell
    worker: int  # process id
    since: float  # time.monotonic()


class Watcher:
    """Counts events: done, running, failed, time left."""

    def __init__(self, console: Console, total: int, live: bool = False) -> None:
        self.console, self.total, self.live = console, total, live
        self.counts: Counter[str] = Counter()
        self.running: dict[str, Running] = {}  # by the cell's key
        self.start = self.shown = time.monotonic()

    def __call__(self, event: Event) -> None:
        cell, record = event.cell, event.record
        if event.put_off:
            self.running.pop(cell.key, None)
            self.say(f"{cell.label}: out of memory beside others, runs again alone", "yellow")
        elif record is None:
            self.running[cell.key] = Running(cell.label, event.worker, time.monotonic())
        else:
            self.running.pop(cell.key, None)
            self.counts[record.status] += 1
            if record.status in ("failed", "timed out"):
                self.say(f"{record.status} {cell.label}: {record.reason}", "red")
        if self.live:
            return
        if self.counts.total() == self.total or (record is None and time.monotonic() - self.shown > EVERY):
            self.shown = time.monotonic()
            self.console.print(
                f"{self.counts.total()}/{self.total} cells, {self.note()}, {self.left()}", highlight=False
            )

    def say(self, words: str, style: str) -> None:
        self.console.print(words, style=style, markup=False, highlight=False)  # a reason may quote anything

    def note(self) -> str:
        failed = self.counts["failed"] + self.counts["timed out"]
        return f"{self.counts['done']} done, {len(self.running)} running, {failed} failed" + (
            f", {self.counts['not applicable']} not applicable" if self.counts["not applicable"] else ""
        )

    def left(self) -> str:
        ended = self.counts.total()
        seconds = (time.monotonic() - self.start) / ended * (self.total - ended) if ended else float("nan")
        return f"about {duration(seconds)} left" if seconds == seconds else "time left unknown"


@contextmanager
def watching(console: Console, total: int) -> Iterator[Watcher]:
    """A watcher to feed events to."""
    notebook = console.is_jupyter and find_spec("ipywidgets") is not None  # without them rich shows nothing
    if not (console.is_terminal or notebook):
        yield Watcher(console, total)
        return
    from rich.live import Live

    from harness.live import View

    watcher = Watcher(console, total, live=True)
    with Live(View(watcher), console=console, refresh_per_second=2):
        yield watcher


def duration(seconds: float) -> str:
    """90 -> 1 min 30 s."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
