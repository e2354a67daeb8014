"""How far a run is: counts of its events, and a line now and then where there is no live view."""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

from rich.console import Console

from harness.console import duration
from harness.run.event import Began, CellEvent, Deferred, Ended
from harness.store.records import SETTLED

EVERY = 10.0  # seconds between lines where there is no terminal


class Running(NamedTuple):
    label: str  # of the cell
    worker: int  # process id
    since: float  # time.monotonic()


class Progress:
    """Counts the cells that are done, running and failed, and estimates the time left."""

    def __init__(self, console: Console, total: int, live: bool = False) -> None:
        self.console, self.total, self.live = console, total, live
        self.counts: Counter[str] = Counter()  # ended cells by status
        self.running: dict[str, Running] = {}  # by the cell's key
        self.start = self.last_line = time.monotonic()

    def update(self, event: CellEvent) -> None:
        match event:
            case Began(cell, worker):
                self.running[cell.key] = Running(cell.label, worker, time.monotonic())
            case Deferred(cell):
                self.running.pop(cell.key, None)
                self._print(f"{cell.label}: out of memory beside others, runs again alone", "yellow")
            case Ended(cell, record):
                self.running.pop(cell.key, None)
                self.counts[record.status] += 1
                if record.status not in SETTLED:
                    self._print(f"{record.status} {cell.label}: {record.reason}", "red")
        due = not isinstance(event, Ended) and time.monotonic() - self.last_line > EVERY
        if not self.live and (due or self.counts.total() == self.total):
            self.last_line = time.monotonic()
            self._print(f"{self.counts.total()}/{self.total} cells, {self.counts_text()}, {self.time_left()}")

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style, markup=False, highlight=False)  # a reason may quote anything

    def counts_text(self) -> str:
        failed = self.counts["failed"] + self.counts["timed out"]
        return f"{self.counts['done']} done, {len(self.running)} running, {failed} failed" + (
            f", {self.counts['not applicable']} not applicable" if self.counts["not applicable"] else ""
        )

    def time_left(self) -> str:
        ended = self.counts.total()
        if not ended:
            return "time left unknown"
        return f"about {duration((time.monotonic() - self.start) / ended * (self.total - ended))} left"
