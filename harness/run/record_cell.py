"""One cell, from its plan to its record: whatever happens inside becomes a status, and the run goes on."""

from __future__ import annotations

import os
import platform
import resource
import signal
import subprocess
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import harness
from harness.console import one_line
from harness.errors import Unreachable
from harness.grid.grid import Cell
from harness.plugins import custom
from harness.plugins.registry import Spec, create, entry
from harness.store.folder import DISK_FULL
from harness.store.open import opened
from harness.store.records import Measured, Plugged, Record

if TYPE_CHECKING:
    import torch

    from attacks.base import Attack
    from defenses.base import Defense
    from harness.cell.steps import Result
    from harness.store.folder import Store
    from tasks.base import Task
    from tasks.plugin import Plugin

LIBRARIES = ("torch", "torchvision", "datasets", "transformers", "opacus", "scikit-learn", "numpy", "safetensors")
OUT_OF_MEMORY = ("out of memory", "out of GPU memory")  # reasons of a record


@dataclass(frozen=True)
class Settings:
    """How cells are run, the same for all of a run."""

    store: str  # a folder or a URL
    device: str = "auto"  # auto, cpu or cuda
    gpus: tuple[str, ...] = ()  # that local workers are dealt over, as CUDA_VISIBLE_DEVICES names them
    threads: int = 0  # per process; 0 leaves torch's own choice
    timeout: float = 3600.0  # seconds per cell
    deterministic: bool = False
    compiled: bool = False
    plugins: tuple[str, ...] = ()  # of the user's own: files, or module:Class


class CellTimeout(BaseException):
    """Not an Exception: a plug-in's `except Exception` must not swallow it."""


def prepare(settings: Settings) -> torch.device:
    """Once per process, before the first cell: threads, determinism and the device."""
    import torch

    for source in settings.plugins:
        custom.add(source)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def run_cell(cell: Cell, settings: Settings, device: torch.device) -> Record:
    """Run a cell and return its record; only KeyboardInterrupt, a kill, a full disk and storage that does not
    answer (OSError) get through."""
    from harness.cell import steps as way
    from tasks.plugin import BadInput, NotApplicable

    store = opened(settings.store)
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    record = blank_record(cell, started)
    try:
        task, attack, defense = (_plugin(k, s) for k, s in _specs(cell))
        with time_limit(settings.timeout):
            result = way.run(
                cast("Task", task), cast("Attack", attack), cell.dose, cast("Defense", defense), cell.seed, store,
                device, settings.compiled,
            )  # fmt: skip
        _fill(record, result, store, cast("Task", task).rate)
        record.status = "done"
    except NotApplicable as error:
        record.status, record.reason = "not applicable", one_line(error)
    except CellTimeout:
        record.status, record.reason = "timed out", f"more than {settings.timeout:g} s (the grid's `timeout`)"
    except BadInput as error:
        record.status, record.reason = "failed", one_line(error)
    except OSError as error:
        if error.errno in DISK_FULL or isinstance(error, Unreachable):  # no fault of the cell: it stays pending
            raise
        record.status, record.reason, record.traceback = "failed", f"OSError: {one_line(error)}", _trace(error)
    except Exception as error:
        record.status, record.reason, record.traceback = "failed", reason_of(error), _trace(error)
    record.seconds["total"] = time.perf_counter() - clock
    record.peak_memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    record.provenance = provenance(settings, str(device))
    return record


def blank_record(cell: Cell, started: str = "") -> Record:
    """What is known of a cell before it runs."""
    plugged = {}
    for kind, spec in _specs(cell):
        options = _plugin(kind, spec).options()
        e = entry(kind, spec.name)
        about = e if e.source else None
        plugged[kind] = Plugged(
            name=spec.name, label=spec.label, options=options, label_options=dict(spec.options), source=e.source,
            about=about,
        )  # fmt: skip
    return Record(
        key=cell.key, label=cell.label, dose=cell.dose, seed=cell.seed, status="failed", started=started,
        task=plugged["tasks"], attack=plugged["attacks"], defense=plugged["defenses"],
        modality=entry("tasks", cell.task.name).modalities[0],
        clean_metric=cast("Task", _plugin("tasks", cell.task)).clean_metric,
        stage=entry("defenses", cell.defense.name).stage,
    )  # fmt: skip


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise CellTimeout in the main thread after this long."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise CellTimeout

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@cache
def code() -> dict[str, Any]:
    """Which tinydrop this is."""

    def git(*words: str) -> str:
        root = Path(__file__).resolve().parents[2]
        if not (root / ".git").exists():  # installed; a repository further up is somebody else's
            return ""
        answer = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return answer.stdout.strip() if answer.returncode == 0 else ""

    return {
        "tinydrop": harness.__version__,
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
    }


@cache
def provenance(settings: Settings, device: str) -> dict[str, Any]:
    """Everything outside the cell that a reader needs to repeat it."""
    import torch

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return ""

    gpu = torch.cuda.get_device_name() if device.startswith("cuda") else ""
    return {
        **code(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: installed(name) for name in LIBRARIES},
        "device": gpu or device,
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "settings": {k: v for k, v in asdict(settings).items() if k != "store"},
    }


def _specs(cell: Cell) -> tuple[tuple[str, Spec], ...]:
    return ("tasks", cell.task), ("attacks", cell.attack), ("defenses", cell.defense)


def _plugin(kind: str, spec: Spec) -> Plugin:
    return create(kind, spec.name, dict(spec.options))


def _fill(record: Record, result: Result, store: Store, rate: int) -> None:
    from harness.cell.gallery import files, files_of_rows

    record.metrics = {k: Measured(value=m.value, n=m.n) for k, m in result.metrics.items()}
    record.seconds = dict(result.seconds)
    record.gpu_peak_bytes = dict(result.gpu_bytes)
    record.fits, record.artefacts = result.fits, sorted(result.artefacts)
    record.fit_seconds = sum({f["key"]: f["seconds"] for f in result.fits}.values())
    record.clean_used = result.findings.clean_used
    record.dataset_fingerprint = result.dataset
    record.train_size = result.train_size
    for name, tensor in result.findings.saved.items():
        record.findings |= _keep(store, record.key, name, tensor)
    kept = [files(name, shown, rate) for name, shown in result.made.items()]
    kept += [files_of_rows(name, shown, rate) for name, shown in result.rows.items()]
    for file, data in (pair for found in kept for pair in found.items()):
        record.findings[file] = store.keep(store.findings(record.key) / file, data)


def _keep(store: Store, key: str, name: str, tensor: torch.Tensor) -> dict[str, str]:
    """A finding as safetensors, and as a PNG if it has the shape of a picture, as a JSON if it has that of a list."""
    from safetensors.torch import save

    from harness.cell.gallery import listed, png

    folder = store.findings(key)
    kept = {name: store.keep(folder / f"{name}.safetensors", save({name: tensor.contiguous()}))}
    picture = tensor.squeeze()
    if picture.ndim == 2 or (picture.ndim == 3 and picture.shape[0] == 3):
        pixels = (picture.clamp(0, 1) * 255).round().byte()
        drawn = png((pixels[..., None] if pixels.ndim == 2 else pixels.permute(1, 2, 0))[None].numpy())
        kept[f"{name}.png"] = store.keep(folder / f"{name}.png", drawn)
    elif picture.ndim <= 1:
        kept[f"{name}.values.json"] = store.keep(folder / f"{name}.values.json", listed(picture.reshape(-1)))
    return kept


def reason_of(error: Exception) -> str:
    """One line; one of OUT_OF_MEMORY where that is what torch means by it."""
    said = str(error)
    gpu = "CUDA error: out of memory" in said or "CUBLAS_STATUS_ALLOC_FAILED" in said
    if gpu or type(error).__name__ == "OutOfMemoryError":
        return "out of GPU memory"
    if isinstance(error, MemoryError) or "can't allocate memory" in said:
        return "out of memory"
    return f"{type(error).__name__}: {one_line(error)}"


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
