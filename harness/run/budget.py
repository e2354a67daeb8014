"""How long a run may take and how many of its cells may fail."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

from harness.errors import BadGrid
from harness.run.event import CellEvent, Ended, Event, Idle
from harness.store.records import SETTLED

MOST = 366 * 24 * 3600
UNITS = {"h": 3600, "m": 60, "s": 1}


def parse_duration(text: str) -> float:
    """2h, 1h30m or 90s, in seconds. Raises BadGrid."""
    match = re.fullmatch(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", text.strip())
    total = sum(int(n or 0) * unit for n, unit in zip(match.groups(), UNITS.values(), strict=True)) if match else 0
    if not 0 < total <= MOST:
        raise BadGrid(f"--time-budget {text!r}: write hours, minutes, seconds: 2h, 1h30m or 90s; a year at most")
    return float(total)


@dataclass
class Budget:
    """Stops a run early. Unfinished cells are not recorded; the same command resumes there."""

    seconds: float | None = None  # stop after this long; with --jobs 0 once the running cell has ended
    failures: int | None = None  # stop at this many failed or timed-out cells
    stop_reason: str = ""  # empty unless the budget has stopped the run

    def enforce(self, events: Generator[Event, None, None]) -> Iterator[CellEvent]:
        """Pass the events of cells on until the budget is used up."""
        start, failed = time.monotonic(), 0
        with closing(events):  # which stops the workers
            for event in events:
                if not isinstance(event, Idle):
                    yield event
                if isinstance(event, Ended):
                    failed += event.record.status not in SETTLED
                if self.failures is not None and failed >= self.failures:
                    self.stop_reason = f"{failed} cells failed (--max-failures)"
                elif self.seconds is not None and time.monotonic() - start > self.seconds:
                    self.stop_reason = "the time is up (--time-budget)"
                if self.stop_reason:
                    return
