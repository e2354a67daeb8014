"""Cells as Ray tasks, on this machine or on a cluster: one task runs the cells that share a victim.

Every node needs this environment, and the store: a folder under the same path, or a URL. `datasets` reads
the data there and maps its files into memory once per node. Records are the truth, as with local workers: a task that
runs again finds what is recorded and goes on from there.
"""

from __future__ import annotations

import os
import signal
import socket
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from harness.console import one_line
from harness.errors import NoRay
from harness.grid.grid import Cell
from harness.run.cell_log import logged
from harness.run.event import Event
from harness.run.record_cell import Settings, prepare
from harness.run.workers import Batch, alone_at_last, run_group
from harness.store.open import open_store

if TYPE_CHECKING:
    import torch

PASSED = ("TINYDROP_DATA", "HF_HOME", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "PYTHONPATH")  # variables, to every node
LOST = 3  # nodes that a batch may lose before its running cell counts as failed


@dataclass(frozen=True)
class Cluster:
    """Which Ray, and what of it a batch of cells takes."""

    address: str = ""  # host:port or "auto", the one that runs here; "" starts one for this run
    gpus: float | None = None  # of a GPU that a batch takes; None: a whole one, if victims are trained on GPUs


def run_ray(groups: list[list[Cell]], settings: Settings, jobs: int, cluster: Cluster) -> Iterator[Event | None]:
    """As many batches at a time as Ray has room for; `jobs` is how many CPUs a Ray started for this run may use.

    A cell that ran out of memory beside others runs again at the end, with none of this run beside it. Leaving the
    iterator early kills the tasks; what they had not finished is not recorded. None: as of `run_workers`. Raises NoRay.
    """
    ray = _connected(jobs, cluster)
    settings = replace(settings, store=open_store(settings.store).address, threads=settings.threads or 1)
    try:
        yield from alone_at_last(partial(_run, ray, settings, cluster), groups)
    finally:
        ray.shutdown()


def _run(
    ray: Any, settings: Settings, cluster: Cluster, groups: list[list[Cell]], crowded: bool
) -> Iterator[Event | None]:
    gpus = _gpus(ray, settings.device) if cluster.gpus is None else cluster.gpus
    task = ray.remote(_serve).options(num_cpus=settings.threads, num_gpus=gpus, num_returns="streaming", max_retries=0)
    todo = deque(Batch(settings, deque(group)) for group in groups)
    running: dict[Any, Batch] = {}
    lost: Counter[str] = Counter()
    try:
        while todo or running:
            while todo and len(running) < (_room(ray, settings) if crowded else 1):
                batch = todo.popleft()
                batch.since = 0.0
                if batch.cells:
                    running[task.remote(list(batch.cells), settings, crowded)] = batch
            yield None
            ready, _ = ray.wait(list(running), timeout=1.0, fetch_local=False)
            for stream in ready:
                batch = running[stream]
                try:
                    event = ray.get(next(stream))
                except StopIteration:
                    del running[stream]
                except ray.exceptions.NodeDiedError as error:  # the node's fault: the same cells again, elsewhere
                    del running[stream]
                    lost[batch.cells[0].key] += 1
                    if lost[batch.cells[0].key] >= LOST:
                        yield batch.bury("failed", f"{LOST} nodes died under it: {one_line(error, 200)}")
                    todo.appendleft(batch)
                except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
                    del running[stream]
                    memory = crowded and isinstance(error, ray.exceptions.OutOfMemoryError)
                    died = f"the worker process died: {one_line(error, 200)}"
                    yield batch.put_off() if memory else batch.bury("failed", died)
                    todo.appendleft(batch)
                except ray.exceptions.RayTaskError as error:  # the disk is full: cells stay pending
                    raise error.cause from None
                else:
                    batch.note(event)
                    yield event
            for stream in [stream for stream, batch in running.items() if batch.hangs]:
                ray.cancel(stream, force=True)
                batch = running.pop(stream)
                yield batch.bury_hanging()
                todo.appendleft(batch)
    finally:
        for stream in running:
            ray.cancel(stream, force=True)


def _connected(jobs: int, cluster: Cluster) -> Any:
    """The ray module, connected."""
    try:
        import ray
    except ImportError:
        raise NoRay('--executor ray: Ray is not installed; pip install "tinydrop[ray]"') from None
    new = {"address": "local", "num_cpus": jobs, "include_dashboard": False}  # also where another Ray runs
    here = {"address": cluster.address} if cluster.address else new
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        host, colon, port = cluster.address.rpartition(":")
        if colon:  # Ray itself would try for minutes
            socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=10).close()
        ray.init(**here, runtime_env={"env_vars": passed}, logging_level="ERROR", log_to_driver=False)
    except (OSError, ValueError) as error:  # ConnectionError is an OSError
        raise NoRay(
            f"--address {cluster.address!r}: no Ray answers ({one_line(error, 200)}); start one with `ray start --head`"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts its own there
    return ray


def _gpus(ray: Any, device: str) -> int:
    """Of a batch; what has none given is not shown any."""
    return int(device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) >= 1))


def _room(ray: Any, settings: Settings) -> int:
    """Batches to hand to Ray: twice what its CPUs can run, so that none of them waits for the driver."""
    return max(2, int(2 * ray.cluster_resources().get("CPU", 1) / settings.threads))


def _serve(cells: list[Cell], settings: Settings, crowded: bool) -> Iterator[Event]:
    yield from logged(run_group(cells, settings, _prepared(settings), crowded), open_store(settings.store))


@cache
def _prepared(settings: Settings) -> torch.device:
    return prepare(settings)
