"""The output of a cell, from Python or from native code: kept if the cell fails, even if its worker dies."""

from __future__ import annotations

import faulthandler
import io
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.run.event import Began, CellEvent, Deferred, Ended
from harness.store.folder import Store
from harness.store.records import SETTLED

LIMIT = 1 << 20  # bytes of a log; a longer one loses its beginning
OUTPUTS = (1, 2)  # file descriptors


def log_output(events: Iterator[CellEvent], store: Store) -> Iterator[CellEvent]:
    """Pass events on; what this process writes between a cell's start and its end goes to logs/<key>.txt.

    The file stays if the cell failed or timed out. Otherwise its text goes to stderr after all, unless that is a
    terminal: the driver draws there.
    """
    with ExitStack() as capture:
        for event in events:
            match event:
                case Began(cell):
                    yield event
                    log = capture.enter_context(_capture(store.log_path(cell.key)))
                case Ended() | Deferred():
                    log.keep = isinstance(event, Ended) and event.record.status not in SETTLED
                    capture.close()
                    yield event


@dataclass
class _Log:
    path: Path
    keep: bool = False

    def close(self) -> None:
        if not self.keep:
            self._pass_on()
        if not self.keep or not self.path.stat().st_size:
            self.path.unlink(missing_ok=True)

    def _pass_on(self) -> None:
        if self.path.stat().st_size and not os.isatty(2):
            with suppress(OSError):
                sys.stderr.write(self.path.read_text(errors="replace"))
                sys.stderr.flush()


@contextmanager
def _capture(path: Path) -> Iterator[_Log]:
    log = _Log(path)
    try:
        with redirect_output(path):
            yield log
    finally:
        log.close()


@contextmanager
def redirect_output(path: Path) -> Iterator[None]:
    """Send everything that this process and its children write into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_APPEND, 0o644)
    originals = [os.dup(output) for output in OUTPUTS]
    for output in OUTPUTS:
        os.dup2(log, output)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a buffer would die with the process
    faulthandler.enable()  # a crash in native code says where
    over = threading.Event()
    trimming = threading.Thread(target=_trim, args=(log, over), daemon=True)
    trimming.start()
    try:
        with warnings.catch_warnings():  # a warning that an earlier cell has given is given again
            yield
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        for output, original in zip(OUTPUTS, originals):
            os.dup2(original, output)
            os.close(original)
        over.set()
        trimming.join()
        os.close(log)


def _trim(log: int, over: threading.Event) -> None:
    """Keep the file small while it is written: a cell that prints without end must not fill the disk."""
    ended = False
    while not ended:
        ended = over.wait(1.0)
        size = os.fstat(log).st_size
        if size > LIMIT:
            tail = os.pread(log, LIMIT // 2, size - LIMIT // 2)
            os.ftruncate(log, 0)
            os.write(log, b"[...]\n" + tail)
