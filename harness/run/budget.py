"""How much of a grid is run: which cells, for how long, and how many failures it may have."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import BadGrid

if TYPE_CHECKING:
    from collections.abc import Generator

    from harness.run.event import Event

UNITS = {"h": 3600, "m": 60, "s": 1}


def parse_duration(text: str) -> float:
    """2h, 1h30m, 90s. Raises BadGrid."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    total = sum(int(n or 0) * unit for n, unit in zip(found.groups(), UNITS.values(), strict=True)) if found else 0
    if not total:
        raise BadGrid(f"--time-budget {text!r}: write hours, minutes, seconds: 2h, 1h30m or 90s")
    return float(total)


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
