"""Memory of this machine: of a run's processes and of the GPUs, and how many workers fit on a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil

CONTEXT = 1 << 29  # bytes that CUDA and its libraries take in every process, beside torch's own
SLACK = 1.25  # torch keeps more than it uses
UNKNOWN = 4 << 30  # bytes that a cell is taken to need before one is recorded; more than any small victim takes
QUERY = ("--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Gpu:
    used: int  # bytes, by every process of the machine
    total: int


def process_memory() -> dict[int, int]:
    """Bytes of memory of this process and its descendants, by process id."""
    this = psutil.Process()
    sizes = {}
    for process in (this, *this.children(recursive=True)):
        try:
            sizes[process.pid] = int(process.memory_info().rss)
        except psutil.Error:  # it has ended meanwhile
            continue
    return sizes


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that torch may use, named as in CUDA_VISIBLE_DEVICES; this process gets no CUDA context."""
    import torch  # imported late: the command line shows its help without it

    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in variable.split(",")] if variable is not None else map(str, range(64))
    return tuple(names)[: torch.cuda.device_count()]


def gpu_memory(names: Sequence[str] = ()) -> list[Gpu]:
    """The memory of these GPUs, or of all, as nvidia-smi reports it; empty where there is none."""
    selection = [f"--id={','.join(names)}"] if names else []
    return parse_gpu_memory(ask_nvidia_smi(*selection, *QUERY))


def ask_nvidia_smi(*words: str) -> str:
    """What nvidia-smi answers; empty where it is missing, fails or takes longer than five seconds."""
    if shutil.which("nvidia-smi") is None:
        return ""
    try:
        answer = subprocess.run(["nvidia-smi", *words], capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""


def parse_gpu_memory(answer: str) -> list[Gpu]:
    """nvidia-smi's lines, "used, total" in MiB; a GPU that reports neither ("[N/A]") is left out."""
    rows = [[field.strip() for field in line.split(",")] for line in answer.splitlines()]
    return [Gpu(int(row[0]) << 20, int(row[1]) << 20) for row in rows if len(row) == 2 and all(map(str.isdigit, row))]


def workers_that_fit(peaks: Iterable[int], room: int) -> int:
    """How many cells fit on a GPU at once if each takes as much as the largest so far, or UNKNOWN; at least 1.

    peaks: bytes of GPU memory that cells took; room: free bytes.
    """
    largest = max(peaks, default=0) or UNKNOWN
    return max(1, int(room / (SLACK * largest + CONTEXT)))
