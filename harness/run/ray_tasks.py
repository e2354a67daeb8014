"""Cells as Ray tasks, on this machine or on a cluster: one task runs the cells that share a victim.

Every node needs this environment, and the store: a folder under the same path, or a URL. `datasets` reads the data
there and maps its files into memory once per node. Records are the truth, as with local workers: a task that runs again
skips the cells that are recorded.
"""

from __future__ import annotations

import os
import signal
import socket
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.console import one_line
from harness.errors import NoRay
from harness.grid.grid import Cell
from harness.run.cell_log import log_output
from harness.run.event import CellEvent, Ended, Event, Idle
from harness.run.record_cell import set_up_process
from harness.run.settings import Settings
from harness.run.workers import Batch, rerun_alone, run_group
from harness.store.open import open_store

if TYPE_CHECKING:
    import torch

VARIABLES = ("TINYDROP_DATA", "HF_HOME", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "PYTHONPATH")  # passed to every node
MOST_LOST = 3  # nodes that a batch may lose before its running cell counts as failed


@dataclass(frozen=True)
class Cluster:
    """Which Ray to use, and how much of a GPU a batch of cells takes."""

    address: str = ""  # host:port; "auto": the one that runs here; empty: start one for this run
    gpus: float | None = None  # share of a GPU per batch; None: a whole one, if victims are trained on GPUs


def run_ray(groups: list[list[Cell]], settings: Settings, jobs: int, cluster: Cluster) -> Iterator[Event]:
    """Run as many batches at a time as Ray has room for; `jobs` is how many CPUs a Ray started for this run may use.

    A cell that ran out of memory beside others runs again at the end, with none of this run beside it. Leaving the
    iterator early kills the tasks; what they had not finished is not recorded. Raises NoRay.
    """
    ray = _connect(jobs, cluster)
    settings = replace(settings, store=open_store(settings.store).address, threads=settings.threads or 1)
    gpus = _gpus_per_batch(ray, settings.device) if cluster.gpus is None else cluster.gpus

    def run(groups: list[list[Cell]], crowded: bool) -> Iterator[Event]:
        return _Tasks(ray, settings, gpus, crowded).run(groups)

    try:
        yield from rerun_alone(run, groups)
    finally:
        ray.shutdown()


class _Tasks:
    """Batches of cells, each of which waits here or runs as a Ray task that streams its events."""

    def __init__(self, ray: Any, settings: Settings, gpus: float, crowded: bool) -> None:
        self.ray, self.settings, self.crowded = ray, settings, crowded
        self.task = ray.remote(_serve).options(
            num_cpus=settings.threads, num_gpus=gpus, num_returns="streaming", max_retries=0
        )
        self.waiting: deque[Batch] = deque()
        self.running: dict[Any, Batch] = {}  # by the stream of their events
        self.lost: Counter[str] = Counter()  # nodes that died, by the key of the cell that ran there

    def run(self, groups: list[list[Cell]]) -> Iterator[Event]:
        self.waiting.extend(Batch(self.settings, deque(group)) for group in groups)
        try:
            while self.waiting or self.running:
                self._hand_out()
                yield Idle()
                ready, _ = self.ray.wait(list(self.running), timeout=1.0, fetch_local=False)
                for stream in ready:
                    if event := self._collect(stream):
                        yield event
                for stream in [stream for stream, batch in self.running.items() if batch.hangs]:
                    yield self._end_hanging(stream)
        finally:
            for stream in self.running:
                self.ray.cancel(stream, force=True)

    def _hand_out(self) -> None:
        while self.waiting and len(self.running) < (_batch_limit(self.ray, self.settings) if self.crowded else 1):
            batch = self.waiting.popleft()
            batch.since = 0.0
            if batch.cells:
                self.running[self.task.remote(list(batch.cells), self.settings, self.crowded)] = batch

    def _collect(self, stream: Any) -> CellEvent | None:
        """The next event of a task; None at its end, or if its node died and the batch waits to run elsewhere.

        Raises the OSError of a full disk.
        """
        batch = self.running[stream]
        try:
            event: CellEvent = self.ray.get(next(stream))
        except StopIteration:
            del self.running[stream]
            return None
        except self.ray.exceptions.RayError as error:
            loss = self._event_of_error(batch, error)
            del self.running[stream]
            self.waiting.appendleft(batch)
            return loss
        batch.update(event)
        return event

    def _event_of_error(self, batch: Batch, error: Exception) -> CellEvent | None:
        errors = self.ray.exceptions
        match error:
            case errors.NodeDiedError():  # the node's fault: the same cells again, elsewhere
                key = batch.cells[0].key
                self.lost[key] += 1
                if self.lost[key] < MOST_LOST:
                    return None
                return batch.record_death(f"{MOST_LOST} nodes died under it: {one_line(error, 200)}")
            case errors.OutOfMemoryError() if self.crowded:
                return batch.defer()
            case errors.OutOfMemoryError() | errors.WorkerCrashedError():
                return batch.record_death(f"the worker process died: {one_line(error, 200)}")
            case errors.RayTaskError(cause=cause):  # the disk is full: cells stay pending
                raise cause from None
            case _:
                raise error

    def _end_hanging(self, stream: Any) -> Ended:
        self.ray.cancel(stream, force=True)
        batch = self.running.pop(stream)
        event = batch.record_hang()
        self.waiting.appendleft(batch)
        return event


def _connect(jobs: int, cluster: Cluster) -> Any:
    """The ray module, connected."""
    try:
        import ray  # imported late: an optional library
    except ImportError:
        raise NoRay('--executor ray: Ray is not installed; pip install "tinydrop[ray]"') from None
    local = {"address": "local", "num_cpus": jobs, "include_dashboard": False}  # even if another Ray runs here
    where = {"address": cluster.address} if cluster.address else local
    variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    previous = signal.getsignal(signal.SIGTERM)
    try:
        host, colon, port = cluster.address.rpartition(":")
        if colon:  # Ray itself would try for minutes
            socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=10).close()
        ray.init(**where, runtime_env={"env_vars": variables}, logging_level="ERROR", log_to_driver=False)
    except (OSError, ValueError) as error:  # ConnectionError is an OSError
        raise NoRay(
            f"--address {cluster.address!r}: no Ray answers ({one_line(error, 200)}); start one with `ray start --head`"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, previous)  # Ray has put its own there
    return ray


def _gpus_per_batch(ray: Any, device: str) -> int:
    """GPUs reserved per batch. Ray hides all GPUs from a task that reserves none."""
    return int(device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) >= 1))


def _batch_limit(ray: Any, settings: Settings) -> int:
    """Batches to hand to Ray: twice what its CPUs can run, so that none of them waits for the driver."""
    return max(2, int(2 * ray.cluster_resources().get("CPU", 1) / settings.threads))


def _serve(cells: list[Cell], settings: Settings, crowded: bool) -> Iterator[CellEvent]:
    yield from log_output(run_group(cells, settings, _device(settings), crowded), open_store(settings.store))


@cache
def _device(settings: Settings) -> torch.device:
    """The device of this process, which is set up once."""
    return set_up_process(settings)
