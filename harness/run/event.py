"""The events of a run. A cell begins, and then it ends or is deferred."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from harness.grid.grid import Cell
from harness.store.records import Record


@dataclass(frozen=True)
class Began:
    cell: Cell
    worker: int = field(default_factory=os.getpid)  # id of the process that runs it


@dataclass(frozen=True)
class Ended:
    """The record is on disk."""

    cell: Cell
    record: Record


@dataclass(frozen=True)
class Deferred:
    """The cell ran out of memory beside others. Nothing is recorded; it runs again alone."""

    cell: Cell


@dataclass(frozen=True)
class Idle:
    """Nothing has happened for a second: a chance for the driver to look at its clock."""


CellEvent = Began | Ended | Deferred
Event = CellEvent | Idle
