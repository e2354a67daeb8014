"""Victims an hour when several processes train on one device: with and without MPS, and on the processor alone.

MPS is NVIDIA's service that lets kernels of several processes run at the same time; without it they take turns.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from gpu.stage import Stage
from gpu.victims import make_task
from harness.cell.speedup import Speedup
from harness.cell.train import train_victim
from harness.run import memory
from harness.run.prepare import default_jobs
from harness.store.folder import Store
from tasks.plugin import BadInput

NAMES = ("digits", "fashion_mnist", "sst2", "fsdd", "classic_books")
ON_THE_CPU = ("digits", "fsdd")  # the others take too long there
JOBS = (1, 2, 4, 8, 16)
MPS = "nvidia-cuda-mps-control"
READY = 90.0  # seconds that workers may take to start
ENOUGH = 30.0  # seconds that must be left to start them once more


def measure(stage: Stage) -> None:
    names = ("digits",) if stage.shrink else NAMES
    jobs = (1, 2) if stage.shrink else tuple(n for n in JOBS if n <= max(1, os.cpu_count() or 1))
    cpu, on_gpu = torch.device("cpu"), stage.device.type == "cuda"
    measure_workers(stage, ON_THE_CPU if on_gpu else names, jobs[-1:] if on_gpu else jobs, "CPU", cpu)
    if not on_gpu:
        return
    rates = measure_workers(stage, names, jobs, "GPU", stage.device)
    picked = default_jobs(("0",), Store(stage.work / "empty"))
    for name, found in rates.items():
        near = max((n for n in found if n <= picked), default=min(found))
        stage.figures.add("--jobs picks", picked, "workers", task=name)
        stage.figures.add("of the best rate", 100 * found[near] / max(found.values()), "%", task=name)
    with run_mps(stage) as runs:
        if runs:
            stage.need(ENOUGH)
            measure_workers(stage, names, [n for n in jobs if n > 2], "GPU, MPS", stage.device)


def measure_workers(
    stage: Stage, names: Sequence[str], jobs: Sequence[int], how: str, device: torch.device
) -> dict[str, dict[int, float]]:
    """Victims an hour of each task by number of workers; each trains for two seconds, one victim at least.

    The workers are started once, and n of them train at a time.
    """
    before = sum(gpu.used for gpu in memory.gpu_memory())
    rates: dict[str, dict[int, float]] = {}
    with start_workers(max(jobs), names, device, stage.shrink) as workers:
        known = set.intersection(*(set(worker.recv()) for worker in workers))
        took = sum(gpu.used for gpu in memory.gpu_memory()) - before
        if took > 0 and device.type == "cuda":
            stage.figures.add("GPU memory a worker", took / len(workers) / 2**20, "MiB", workers=len(workers), how=how)
        for name in (name for name in names if name in known):
            for speedup in speedups(name, device):
                for n in jobs:
                    of = {"task": name, "workers": n, "how": how, "speedup": speedup}
                    rate = stage.figures.known("victims", **of)
                    if rate is None:
                        stage.need(8)
                        for worker in workers[:n]:
                            worker.send((name, speedup, 0.3 if stage.shrink else 2.0))
                        rate, peak = collect(workers[:n])
                        stage.figures.add("victims", rate, "/h", **of)
                        stage.figures.add("torch's memory", peak / 2**20, "MiB", **of)
                    if speedup == "none":
                        rates.setdefault(name, {})[n] = rate
    return rates


def speedups(name: str, device: torch.device) -> tuple[Speedup, ...]:
    return ("none", "graphs") if device.type == "cuda" and name == "digits" else ("none",)


def collect(workers: Sequence[Connection]) -> tuple[float, int]:
    """Victims an hour of all, and the most bytes of GPU memory that torch held in one."""
    answers = [worker.recv() for worker in workers]
    return sum(3600 * count / seconds for count, seconds, _ in answers), max(peak for *_, peak in answers)


@contextmanager
def start_workers(n: int, names: Sequence[str], device: torch.device, shrink: bool) -> Iterator[list[Connection]]:
    """Processes that have loaded their data; each has sent the names of the tasks that it can train."""
    context = mp.get_context("spawn")
    pairs = [context.Pipe() for _ in range(n)]
    processes = [
        context.Process(target=work, args=(theirs, list(names), str(device), shrink), daemon=True)
        for _, theirs in pairs
    ]
    try:
        for process in processes:
            process.start()
        for _, theirs in pairs:
            theirs.close()  # so that a worker that dies is an EOFError here
        end = time.monotonic() + READY
        for ours, _ in pairs:
            if not ours.poll(max(0.1, end - time.monotonic())):
                raise TimeoutError(f"a worker has not started within {READY:g} s")
        yield [ours for ours, _ in pairs]
    finally:
        for process in processes:
            process.kill()
            process.join()


def work(connection: Connection, names: list[str], device: str, shrink: bool) -> None:
    """Train victims of the task asked for, until told to stop; answer their number, the seconds and the memory."""
    torch.set_num_threads(1)
    on = torch.device(device)
    ready = {}
    for name in names:
        task = make_task(name, shrink)
        try:
            ready[name] = task, task.load().train
        except BadInput:
            continue
        train_victim(task, ready[name][1].select(range(64)), recipe=task.recipe(), seed=0, device=on)
    connection.send(list(ready))
    while True:
        try:
            name, speedup, seconds = connection.recv()
        except EOFError:
            return
        task, samples = ready[name]
        count, start = 0, time.perf_counter()
        while not count or time.perf_counter() - start < seconds:
            train_victim(task, samples, recipe=task.recipe(), seed=count, device=on, speedup=speedup)
            if on.type == "cuda":
                torch.cuda.synchronize(on)
            count += 1
        peak = torch.cuda.max_memory_reserved(on) if on.type == "cuda" else 0
        connection.send((count, time.perf_counter() - start, peak))


@contextmanager
def run_mps(stage: Stage) -> Iterator[bool]:
    """MPS for the processes that are started within; False where it is not installed or does not start."""
    folders = {name: str(stage.work / name) for name in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")}
    if shutil.which(MPS) is None:
        stage.say(f"MPS: {MPS} is not installed here")
        yield False
        return
    for folder in folders.values():
        Path(folder).mkdir()
    started = subprocess.run([MPS, "-d"], env={**os.environ, **folders}, check=False, timeout=20)
    if started.returncode:
        stage.say(f"MPS: {MPS} -d ends with {started.returncode}")
        yield False
        return
    os.environ.update(folders)
    try:
        yield True
    finally:
        subprocess.run([MPS], input="quit\n", text=True, env={**os.environ}, check=False, timeout=20)
        for name in folders:
            os.environ.pop(name, None)
