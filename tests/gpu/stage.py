"""What a stage of the campaign gets: a device, a time budget, a scratch folder, and a file for its figures."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Figure = dict[str, Any]


class OutOfTime(Exception):
    """The budget of a stage is spent. The next start of the campaign goes on there."""


@dataclass
class Figures:
    """JSON lines, one for each figure: stage, name, value, unit, of (what it was measured of), and when.

    A line is on the disk before the next is measured, so that a stage that is cut short keeps what it has.
    """

    path: Path
    stage: str
    about: dict[str, Any] = field(default_factory=dict)  # in every line: device, shrink, commit

    def add(self, name: str, value: float, unit: str, **of: Any) -> None:
        """Write a figure down."""
        self.write({"name": name, "value": float(f"{value:.6g}"), "unit": unit, "of": of})

    def write(self, line: dict[str, Any]) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        with self.path.open("a") as file:
            file.write(json.dumps({"stage": self.stage, **line, **self.about, "at": at}) + "\n")

    def known(self, name: str, **of: Any) -> float | None:
        """The value that an earlier start of the campaign has measured."""
        for line in read_lines(self.path):
            if (line["stage"], line.get("name"), line.get("of")) == (self.stage, name, of):
                return float(line["value"])
        return None


def read_lines(path: Path) -> list[Figure]:
    """The lines of a file of figures; none if there is no file. A last line that was cut off is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = []
    for number, line in enumerate(lines):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines) - 1:
                raise
    return found


@dataclass
class Stage:
    """One stage of a campaign while it runs."""

    figures: Figures
    device: torch.device
    shrink: bool  # the smallest size of everything: to try the campaign, not to measure
    seconds: float  # its budget
    work: Path  # a folder for what it makes
    start: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.seconds - (time.monotonic() - self.start)

    def need(self, seconds: float) -> None:
        """Raises OutOfTime where less than this is left; what is measured already is kept."""
        if self.left < seconds:
            raise OutOfTime

    def finish(self) -> None:
        """Wait until the device has done all that was asked of it."""
        import torch  # imported late: the campaign itself does without it

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def clock(self) -> float:
        """Seconds, read when the device is idle."""
        self.finish()
        return time.perf_counter()

    def say(self, text: str) -> None:
        print(f"[{self.figures.stage}] {text}", flush=True)
