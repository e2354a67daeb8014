"""What executors tell: a cell began, ended, or was put off."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.grid.grid import Cell
from harness.store.records import Record

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Event:
    """A cell began (record is None) or ended; or it was put off, with nothing recorded."""

    cell: Cell
    record: Record | None = None
    worker: int = field(default_factory=os.getpid)  # the process that runs it
    put_off: bool = False  # it ran out of memory beside others, and runs again alone
