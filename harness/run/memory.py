"""Memory of this machine: of a run's processes, of its GPUs, and how many workers fit on one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import psutil

Device = Literal["auto", "cpu", "cuda"]  # auto takes a GPU where there is one
CONTEXT = 1 << 29  # bytes that CUDA and its libraries take in every process, beside torch's own
SLACK = 1.25  # torch keeps more than it uses
QUERY = ("--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Gpu:
    used: int  # bytes, by every process of the machine
    total: int


def processes() -> dict[int, int]:
    """Bytes in memory of this process and of all below it, by process id."""
    this = psutil.Process()
    found = {}
    for process in (this, *this.children(recursive=True)):
        try:
            found[process.pid] = int(process.memory_info().rss)
        except psutil.Error:  # it has ended since
            continue
    return found


def visible() -> tuple[str, ...]:
    """GPUs that torch may use, as CUDA_VISIBLE_DEVICES names them; asked without a CUDA context of our own."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in named.split(",")] if named is not None else map(str, range(64))
    return tuple(names)[: torch.cuda.device_count()]


def gpus(names: Sequence[str] = ()) -> list[Gpu]:
    """What the driver of the GPUs says of these, or of all; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    which = [f"--id={','.join(names)}"] if names else []
    try:
        answer = subprocess.run(["nvidia-smi", *which, *QUERY], capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parsed(answer.stdout) if answer.returncode == 0 else []


def parsed(answer: str) -> list[Gpu]:
    """nvidia-smi's lines, "used, total" in MiB; a GPU that says neither ("[N/A]") is left out."""
    rows = [[field.strip() for field in line.split(",")] for line in answer.splitlines()]
    return [Gpu(int(row[0]) << 20, int(row[1]) << 20) for row in rows if len(row) == 2 and all(map(str.isdigit, row))]


def workers_that_fit(peaks: Iterable[int], room: int) -> int:
    """How many cells fit beside each other if each takes as much as the largest so far; 1 if none is known.

    peaks: bytes of GPU memory that cells took; room: bytes that are free.
    """
    largest = max(peaks, default=0)
    return max(1, int(room / (SLACK * largest + CONTEXT))) if largest else 1
