"""What a run shows while it runs: a bar on a terminal and in a notebook, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.executors import Event

EVERY = 10.0  # seconds between lines where there is no terminal


class Watcher:
    """Counts events: done, running, failed, time left."""

    def __init__(self, console: Console, total: int, progress: Progress | None) -> None:
        self.console, self.total, self.progress = console, total, progress
        self.counts: Counter[str] = Counter()
        self.running: set[str] = set()
        self.start = self.shown = time.monotonic()
        self.bar = progress.add_task("", total=total, note="") if progress else None

    def __call__(self, event: Event) -> None:
        if event.record is None:
            self.running.add(event.cell.label)
        else:
            self.running.discard(event.cell.label)
            self.counts[event.record.status] += 1
            if event.record.status in ("failed", "timed out"):
                said = f"{event.record.status} {event.cell.label}: {event.record.reason}"
                self.console.print(said, style="red", markup=False, highlight=False)  # a reason may quote anything
        if self.progress and self.bar is not None:
            self.progress.update(self.bar, completed=self.counts.total(), note=self.note())
        elif self.counts.total() == self.total or (event.record is None and time.monotonic() - self.shown > EVERY):
            self.shown = time.monotonic()
            self.console.print(
                f"{self.counts.total()}/{self.total} cells, {self.note()}, {self.left()}", highlight=False
            )

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
        yield Watcher(console, total, None)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as progress:
        yield Watcher(console, total, progress)


def duration(seconds: float) -> str:
    """90 -> 1 min 30 s."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
