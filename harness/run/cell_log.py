"""What a cell says in a worker, from Python or from native code: kept where it fails, also when the worker dies."""

from __future__ import annotations

import faulthandler
import io
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from harness.store.folder import Store
from harness.store.records import SETTLED

if TYPE_CHECKING:
    from harness.run.event import Event

LIMIT = 1 << 20  # bytes of a log; a longer one loses its beginning
OUTPUTS = (1, 2)  # file descriptors


def logged(events: Iterator[Event], store: Store) -> Iterator[Event]:
    """The same events, of which each cell has two; what this process writes in between goes to logs/<key>.txt.

    The file stays where the cell failed or timed out. Otherwise it is passed on, but not to a terminal: the driver
    draws there.
    """
    for begun in events:
        yield begun
        path, failed = store.log_path(begun.cell.key), False
        try:
            with _into(path):
                ended = next(events)
            failed = ended.record is not None and ended.record.status not in SETTLED
        finally:
            if not failed:
                _pass_on(path)
            if not failed or not path.stat().st_size:
                path.unlink(missing_ok=True)
        yield ended


@contextmanager
def _into(path: Path) -> Iterator[None]:
    """All that this process and its children write goes into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_APPEND, 0o644)
    before = [os.dup(output) for output in OUTPUTS]
    for output in OUTPUTS:
        os.dup2(log, output)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a buffer would die with the process
    faulthandler.enable()  # a crash in native code says where
    over = threading.Event()
    trimming = threading.Thread(target=_trim, args=(log, over), daemon=True)
    trimming.start()
    try:
        with warnings.catch_warnings():  # each cell's own: what an earlier one was warned of is said again
            yield
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        for output, old in zip(OUTPUTS, before):
            os.dup2(old, output)
            os.close(old)
        over.set()
        trimming.join()
        os.close(log)


def _trim(log: int, over: threading.Event) -> None:
    """A cell that never stops talking must not fill the disk."""
    ended = False
    while not ended:
        ended = over.wait(1.0)
        size = os.fstat(log).st_size
        if size > LIMIT:
            tail = os.pread(log, LIMIT // 2, size - LIMIT // 2)
            os.ftruncate(log, 0)
            os.write(log, b"[...]\n" + tail)


def _pass_on(path: Path) -> None:
    if path.stat().st_size and not os.isatty(2):
        with suppress(OSError):
            sys.stderr.write(path.read_text(errors="replace"))
            sys.stderr.flush()
