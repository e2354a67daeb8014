"""Cells in worker processes: a cell that kills its worker costs one record, not the run."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING

from harness.grid.grid import Cell
from harness.run.cell_log import log_output
from harness.run.event import Began, CellEvent, Deferred, Ended, Event, Idle
from harness.run.provenance import code_version
from harness.run.record_cell import OUT_OF_MEMORY, blank_record, run_cell, set_up_process
from harness.run.settings import Settings
from harness.store.open import open_store
from harness.store.records import Status, load_settled, save

if TYPE_CHECKING:
    import torch

    from harness.store.folder import Store

GRACE = 30.0  # seconds after a cell's timeout before its worker, stuck outside Python, is killed


def run_inline(groups: list[list[Cell]], settings: Settings) -> Iterator[CellEvent]:
    """Run the cells in this process, one after the other: for tests, debuggers and classes of a notebook."""
    device = set_up_process(settings)
    if threading.current_thread() is not threading.main_thread():
        warnings.warn(
            f"not in the main thread: cells may take longer than the timeout of {settings.timeout:g} s; with jobs=1 it "
            "applies", stacklevel=2,
        )  # fmt: skip
    for group in groups:
        yield from run_group(group, settings, device)


def run_group(
    cells: list[Cell], settings: Settings, device: torch.device, crowded: bool = False
) -> Iterator[CellEvent]:
    """Run the cells one after the other. Each is claimed first; cells that another run of the same store has claimed
    come last, when that run has usually recorded them, and then they are not run again.

    crowded: other workers use the same memory, so a cell that runs out of it is deferred and not recorded.
    """
    store, claimed_elsewhere = open_store(settings.store), []
    try:
        for cell in cells:
            with store.claim(cell.key, wait=False) as ours:
                if ours:
                    yield from _run_unless_recorded(cell, settings, device, store, crowded)
                else:
                    claimed_elsewhere.append(cell)
        for cell in claimed_elsewhere:
            with store.claim(cell.key):
                yield from _run_unless_recorded(cell, settings, device, store, crowded)
    finally:
        store.push_ledger()


def _run_unless_recorded(
    cell: Cell, settings: Settings, device: torch.device, store: Store, crowded: bool
) -> Iterator[CellEvent]:
    yield Began(cell)
    record = load_settled(store, cell.key)
    if record is None:
        record = run_cell(cell, settings, device)
        if crowded and record.reason in OUT_OF_MEMORY:
            yield Deferred(cell)
            return
        save(store, record)
    yield Ended(cell, record)


def share_threads(jobs: int) -> int:
    """Threads of each of so many processes: its share of the cores, and no more than OMP_NUM_THREADS says."""
    share, asked = max(1, (os.cpu_count() or 1) // jobs), os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(asked)) if asked.isdecimal() and int(asked) else share


def run_workers(groups: list[list[Cell]], settings: Settings, jobs: int) -> Iterator[Event]:
    """Run the cells in `jobs` spawned processes that share the CPU threads. One process gets a whole group, and so its
    victim.

    A cell that ran out of memory beside others runs again alone at the end. Leaving the iterator early (Ctrl-C) stops
    the workers; what they had not finished is not recorded.
    """
    settings = replace(settings, threads=settings.threads or share_threads(jobs))

    def run(groups: list[list[Cell]], crowded: bool) -> Iterator[Event]:
        return _run(groups, settings, min(jobs, len(groups)) if crowded else 1)

    yield from rerun_alone(run, groups)


def rerun_alone(run: Callable[[list[list[Cell]], bool], Iterator[Event]], groups: list[list[Cell]]) -> Iterator[Event]:
    """run(groups, crowded): first all groups beside each other, then the deferred cells, one by one."""
    deferred = []
    for event in run(groups, True):
        if isinstance(event, Deferred):
            deferred.append([event.cell])
        yield event
    if deferred:
        yield from run(deferred, False)


def _run(groups: list[list[Cell]], settings: Settings, jobs: int) -> Iterator[Event]:
    waiting = deque(groups)
    gpus = settings.gpus or ("",)
    workers = [_Worker(settings, crowded=jobs > 1, gpu=gpus[i % len(gpus)]) for i in range(jobs)]
    try:
        while waiting or any(worker.cells for worker in workers):
            for worker in workers:
                if not worker.cells and waiting:
                    worker.assign(waiting.popleft())
            yield from _collect(workers)
            yield Idle()
    finally:
        for worker in workers:
            worker.stop()


@dataclass
class Batch:
    """The cells that a worker was given and has not ended; the first one is running."""

    settings: Settings
    cells: deque[Cell] = field(default_factory=deque)
    since: float = 0.0  # when the first one began; 0: it has not

    def update(self, event: CellEvent) -> None:
        self.cells.remove(event.cell)
        self.since = 0.0
        if isinstance(event, Began):
            self.cells.appendleft(event.cell)
            self.since = time.monotonic()

    @property
    def hangs(self) -> bool:
        return bool(self.cells and self.since) and time.monotonic() - self.since > self.settings.timeout + GRACE

    def record_death(self, reason: str, status: Status = "failed") -> Ended:
        """Record the running cell, which took its worker down."""
        cell = self._remove_running()
        record = blank_record(cell, datetime.now(UTC).isoformat(timespec="seconds"))
        record.status, record.reason, record.provenance = status, reason, dict(code_version())
        save(open_store(self.settings.store), record)
        return Ended(cell, record)

    def record_hang(self) -> Ended:
        limit = self.settings.timeout + GRACE
        return self.record_death(f"more than {limit:g} s; the worker did not answer and was killed", "timed out")

    def defer(self) -> Deferred:
        """Leave the running cell, which took its worker down, to run again alone."""
        return Deferred(self._remove_running())

    def _remove_running(self) -> Cell:
        self.since = 0.0
        return self.cells.popleft()


@dataclass
class _Worker(Batch):
    crowded: bool = False  # whether there are others
    gpu: str = ""  # the only one that it sees; empty: all that its driver sees
    process: SpawnProcess = field(init=False)
    pipe: Connection = field(init=False)

    def __post_init__(self) -> None:
        self._spawn()

    def _spawn(self) -> None:
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.settings, self.crowded), daemon=True)
        gpu = {"CUDA_VISIBLE_DEVICES": self.gpu} if self.gpu else {}
        with _environment({"OMP_NUM_THREADS": str(self.settings.threads), **gpu}):
            self.process.start()
        theirs.close()

    def assign(self, cells: list[Cell]) -> None:
        self.cells = deque(cells)
        self.pipe.send(cells)

    def restart(self) -> None:
        """Hand the remaining cells to a new process."""
        remaining = list(self.cells)
        self.pipe.close()
        self._spawn()
        if remaining:
            self.assign(remaining)

    def receive(self) -> CellEvent:
        """The next event; if the process has died, what becomes of its cell. Raises the OSError of a full disk."""
        try:
            event: CellEvent | OSError = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return self._replace_dead()
        if isinstance(event, OSError):
            raise event
        self.update(event)
        return event

    def _replace_dead(self) -> CellEvent:
        self.process.join()
        code = self.process.exitcode or 0
        killed = code == -signal.SIGKILL  # which is what the kernel does when memory runs out
        how = f"signal {-code}" + (" (out of memory?)" if killed else "") if code < 0 else f"exit code {code}"
        event = self.defer() if self.crowded and killed else self.record_death(f"the worker process died: {how}")
        self.restart()
        return event

    def replace_hanging(self) -> Ended:
        self.process.kill()
        self.process.join()
        event = self.record_hang()
        self.restart()
        return event

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
    """Environment variables for a child that starts now: it reads them when it loads its libraries."""
    original = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]
            os.environ.update({name: original[name]} if name in original else {})


def _collect(workers: list[_Worker]) -> Iterator[CellEvent]:
    """The events that the workers send within a second, and the records of those that died or hang."""
    busy = {worker.pipe: worker for worker in workers if worker.cells}
    for pipe in wait(list(busy), timeout=1.0):
        yield busy[pipe].receive()  # type: ignore[index]
    for worker in workers:
        if worker.hangs:
            yield worker.replace_hanging()


def _serve(pipe: Connection, settings: Settings, crowded: bool) -> None:
    """A worker: cells in, events out, until the driver closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    threading.Thread(target=_die_with_driver, daemon=True).start()
    store = open_store(settings.store)
    device = set_up_process(settings)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            try:
                for event in log_output(run_group(pipe.recv(), settings, device, crowded), store):
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
