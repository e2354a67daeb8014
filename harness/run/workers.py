"""Cells in worker processes: a cell that kills its worker costs one record, not the run."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING

from harness.grid.grid import Cell
from harness.run.cell_log import logged
from harness.run.event import Event
from harness.run.record_cell import OUT_OF_MEMORY, Settings, blank_record, code, prepare, run_cell
from harness.store.open import open_store
from harness.store.records import Status, load_settled, save

if TYPE_CHECKING:
    import torch

    from harness.store.folder import Store

GRACE = 30.0  # seconds after a cell's timeout before its worker, stuck outside Python, is killed


def run_inline(groups: list[list[Cell]], settings: Settings) -> Iterator[Event]:
    """In this process: for tests and debuggers."""
    device = prepare(settings)
    for group in groups:
        yield from run_group(group, settings, device)


def run_group(cells: list[Cell], settings: Settings, device: torch.device, crowded: bool = False) -> Iterator[Event]:
    """One after the other, each claimed first: what another run of the same store has at hand is left for last.

    By then it is recorded there, and not run again here. crowded: other workers use the same memory, so a cell that
    runs out of it is put off and not recorded.
    """
    store, others = open_store(settings.store), []
    try:
        for cell in cells:
            with store.claim(cell.key, wait=False) as mine:
                if mine:
                    yield from _once(cell, settings, device, store, crowded)
                else:
                    others.append(cell)
        for cell in others:
            with store.claim(cell.key):
                yield from _once(cell, settings, device, store, crowded)
    finally:
        store.push_ledger()


def _once(cell: Cell, settings: Settings, device: torch.device, store: Store, crowded: bool) -> Iterator[Event]:
    yield Event(cell)
    record = load_settled(store, cell.key)
    if record is None:
        record = run_cell(cell, settings, device)
        if crowded and record.reason in OUT_OF_MEMORY:
            yield Event(cell, put_off=True)
            return
        save(store, record)
    yield Event(cell, record)


def run_workers(groups: list[list[Cell]], settings: Settings, jobs: int) -> Iterator[Event | None]:
    """In `jobs` spawned processes that share the CPU threads. Groups keep together, so a victim stays in one process.

    A cell that ran out of memory beside others runs again at the end, with nobody beside it. None: for a second nothing
    has happened. Leaving the iterator early (Ctrl-C) stops the workers; what they had not finished is not recorded.
    """
    threads = settings.threads or max(1, (os.cpu_count() or 1) // jobs)
    settings = replace(settings, threads=threads)

    def run(groups: list[list[Cell]], crowded: bool) -> Iterator[Event | None]:
        return _run(groups, settings, min(jobs, len(groups)) if crowded else 1)

    yield from alone_at_last(run, groups)


def alone_at_last(
    run: Callable[[list[list[Cell]], bool], Iterator[Event | None]], groups: list[list[Cell]]
) -> Iterator[Event | None]:
    """run(groups, crowded): first all groups beside each other, then, one by one, the cells that were put off."""
    put_off = []
    for event in run(groups, True):
        if event and event.put_off:
            put_off.append([event.cell])
        yield event
    if put_off:
        yield from run(put_off, False)


def _run(groups: list[list[Cell]], settings: Settings, jobs: int) -> Iterator[Event | None]:
    todo = deque(groups)
    gpus = settings.gpus or ("",)
    workers = [_Worker(settings, crowded=jobs > 1, gpu=gpus[i % len(gpus)]) for i in range(jobs)]
    try:
        while todo or any(w.cells for w in workers):
            for worker in workers:
                if not worker.cells and todo:
                    worker.give(todo.popleft())
            yield from _collect(workers)
            yield None
    finally:
        for worker in workers:
            worker.stop()


@dataclass
class Batch:
    """The cells that a worker was given and has not ended; the first one is running."""

    settings: Settings
    cells: deque[Cell] = field(default_factory=deque)
    since: float = 0.0  # when the first one began; 0: it has not

    def note(self, event: Event) -> None:
        self.cells.remove(event.cell)
        began = event.record is None and not event.put_off
        if began:
            self.cells.appendleft(event.cell)
        self.since = time.monotonic() if began else 0.0

    @property
    def hangs(self) -> bool:
        return bool(self.cells and self.since) and time.monotonic() - self.since > self.settings.timeout + GRACE

    def bury(self, status: Status, reason: str) -> Event:
        """Record the cell that took its worker down."""
        cell = self.cells.popleft()
        self.since = 0.0
        record = blank_record(cell, datetime.now(UTC).isoformat(timespec="seconds"))
        record.status, record.reason, record.provenance = status, reason, dict(code())
        save(open_store(self.settings.store), record)
        return Event(cell, record)

    def put_off(self) -> Event:
        """The cell that took its worker down is to run again, alone."""
        self.since = 0.0
        return Event(self.cells.popleft(), put_off=True)

    def bury_hanging(self) -> Event:
        limit = self.settings.timeout + GRACE
        return self.bury("timed out", f"more than {limit:g} s; the worker did not answer and was killed")


@dataclass
class _Worker(Batch):
    crowded: bool = False  # there are others
    gpu: str = ""  # the only one that it sees; none said: as its driver
    process: SpawnProcess = field(init=False)
    pipe: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.spawn()

    def spawn(self) -> None:
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.settings, self.crowded), daemon=True)
        gpu = {"CUDA_VISIBLE_DEVICES": self.gpu} if self.gpu else {}
        with _environment({"OMP_NUM_THREADS": str(self.settings.threads), **gpu}):
            self.process.start()
        theirs.close()

    def give(self, cells: list[Cell]) -> None:
        self.cells = deque(cells)
        self.pipe.send(cells)

    def renew(self) -> None:
        """The rest of the cells to a new process."""
        rest = list(self.cells)
        self.pipe.close()
        self.spawn()
        if rest:
            self.give(rest)

    def stop(self) -> None:
        self.pipe.close()  # an idle worker takes this as the end and leaves in order
        if self.cells:
            self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """These for a child that starts now: it reads them when it loads its libraries."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]
            os.environ.update({name: before[name]} if name in before else {})


def _collect(workers: list[_Worker]) -> Iterator[Event]:
    """What the workers say within a second, and the records of those that died or hang."""
    busy = {w.pipe: w for w in workers if w.cells}
    for pipe in wait(list(busy), timeout=1.0):
        worker = busy[pipe]  # type: ignore[index]
        try:
            event = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            code = worker.process.exitcode or 0
            how = f"signal {-code}" + (" (out of memory?)" if code == -9 else "") if code < 0 else f"exit code {code}"
            crushed = worker.crowded and code == -signal.SIGKILL
            yield worker.put_off() if crushed else worker.bury("failed", f"the worker process died: {how}")
            worker.renew()
            continue
        if isinstance(event, OSError):
            raise event
        worker.note(event)
        yield event
    for worker in workers:
        if worker.hangs:
            worker.process.kill()
            worker.process.join()
            yield worker.bury_hanging()
            worker.renew()


def _serve(pipe: Connection, settings: Settings, crowded: bool) -> None:
    """A worker: cells in, events out, until the driver closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    threading.Thread(target=_die_with_driver, daemon=True).start()
    store = open_store(settings.store)
    device = prepare(settings)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            try:
                for event in logged(run_group(pipe.recv(), settings, device, crowded), store):
                    pipe.send(event)
            except (BrokenPipeError, ConnectionResetError):
                raise
            except OSError as error:  # the disk is full: the driver stops the run, this cell stays pending
                pipe.send(error)
                return


def _die_with_driver() -> None:
    # A worker that outlived a killed driver would write a record that the resumed run writes too.
    driver = mp.parent_process()
    if driver is not None:
        wait([driver.sentinel])
        os._exit(1)
