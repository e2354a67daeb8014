"""How far a run is: counts of its events, and a line now and then where there is no live view."""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

from rich.console import Console

from harness.console import duration
from harness.run.event import Event

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
