"""One cell, from its plan to its record: whatever happens inside becomes a status, and the run continues."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import isfinite
from types import FrameType
from typing import TYPE_CHECKING, cast

from harness.console import one_line
from harness.errors import Unreachable
from harness.grid.grid import Cell
from harness.plugins import custom
from harness.plugins.registry import Spec, create, entry
from harness.report.cells import CELL_COLUMNS, COST_COLUMNS
from harness.run.provenance import provenance
from harness.run.settings import Settings
from harness.store.folder import DISK_FULL
from harness.store.open import open_store
from harness.store.records import Measured, PluginRecord, Record, storable
from tasks.plugin import BadInput, NotApplicable, Plugin

if TYPE_CHECKING:
    import torch

    from attacks.base import Attack
    from defenses.base import Defense
    from harness.cell.metrics import Metric
    from harness.cell.steps import Result
    from harness.store.folder import Store
    from tasks.base import Task

LONGEST_TRACE = 50_000  # characters of a traceback that a record keeps
OUT_OF_MEMORY = ("out of memory", "out of GPU memory")  # reasons of a record


class CellTimeout(BaseException):
    """Not an Exception: a plug-in's `except Exception` must not swallow it."""


def set_up_process(settings: Settings) -> torch.device:
    """Set the threads, determinism and plug-ins of a process, once and before its first cell. Returns its device."""
    import torch  # imported late: a worker must ignore Ctrl-C before it imports torch

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
    """Run a cell and return its record. Raises OSError for a full disk and for storage that does not answer; any other
    error is in the record."""
    from harness.cell import steps  # imported late: a worker must ignore Ctrl-C before it imports torch

    store = open_store(settings.store)
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    record = blank_record(cell, started)
    try:
        task, attack, defense = plugins = [_plugin(k, s) for k, s in _specs(cell)]
        _refuse_changed(cell, plugins)
        with time_limit(settings.timeout):
            result = steps.run_steps(
                cast("Task", task), cast("Attack", attack), cell.dose, cast("Defense", defense), cell.seed, store,
                device, settings.speedup, cell.retune,
            )  # fmt: skip
        _refuse_changed(cell, plugins)
        _fill(record, result, store, cast("Task", task).rate)
        record.status = "done"
    except NotApplicable as error:
        record.status, record.reason = "not applicable", one_line(error) or "its plug-in gives no reason"
    except CellTimeout:
        record.status, record.reason = "timed out", f"more than {settings.timeout:g} s (the grid's `timeout`)"
    except BadInput as error:
        record.status, record.reason = "failed", one_line(error) or reason_of(error)
    except KeyboardInterrupt:
        raise
    except OSError as error:
        if error.errno in DISK_FULL or isinstance(error, Unreachable):  # no fault of the cell: it stays pending
            raise
        record.status, record.reason, record.traceback = "failed", f"OSError: {one_line(error)}", _trace(error)
    except BaseException as error:  # also sys.exit() of a plug-in, or of a library
        record.status, record.reason, record.traceback = "failed", reason_of(error), _trace(error)
    record.seconds["total"] = time.perf_counter() - clock
    record.peak_memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    record.provenance = provenance(settings, str(device))
    return storable(record)


def blank_record(cell: Cell, started: str = "") -> Record:
    """The record of a cell that has not run: its plug-ins, and status failed."""
    plugged = {}
    for kind, spec in _specs(cell):
        options, about = _plugin(kind, spec).options(), entry(kind, spec.name)
        plugged[kind] = PluginRecord(
            name=spec.name,
            label=spec.label,
            options=options,
            label_options=dict(spec.options),
            source=about.source,
            about=about if about.source else None,
        )
    return Record(
        key=cell.key, label=cell.label, dose=cell.dose, seed=cell.seed, status="failed", started=started,
        task=plugged["tasks"], attack=plugged["attacks"], defense=plugged["defenses"],
        modality=entry("tasks", cell.task.name).modalities[0],
        clean_metric=cast("Task", _plugin("tasks", cell.task)).clean_metric,
        stage=entry("defenses", cell.defense.name).stage,
    )  # fmt: skip


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise CellTimeout in the main thread after this long. In any other thread there is no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        raise CellTimeout

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _specs(cell: Cell) -> tuple[tuple[str, Spec], ...]:
    return ("tasks", cell.task), ("attacks", cell.attack), ("defenses", cell.defense)


def _plugin(kind: str, spec: Spec) -> Plugin:
    return create(kind, spec.name, dict(spec.options))


def _refuse_changed(cell: Cell, plugins: list[Plugin]) -> None:
    """Raise BadInput if a plug-in's code or files are not those that the cell's key covers."""
    from harness.keys.content import content_hash  # imported late: a worker must ignore Ctrl-C before it imports torch
    from tasks.files import group_parts  # imported late: likewise

    for plugin, planned in zip(plugins, cell.made_of):
        if content_hash(plugin) != planned:
            what = " or ".join(["its code", *group_parts(plugin.files())])
            raise BadInput(f"{plugin.name}: {what} changed while the grid ran; run the same command again")


def _fill(record: Record, result: Result, store: Store, rate: int) -> None:
    from harness.cell.gallery import encode_outputs, encode_rows  # imported late: a worker must ignore Ctrl-C first

    _check_metrics(result.metrics)
    record.metrics = {k: Measured(value=m.value, n=m.n) for k, m in result.metrics.items()}
    record.seconds = dict(result.seconds)
    record.gpu_peak_bytes = dict(result.gpu_bytes)
    record.fits, record.artefacts = result.fits, sorted(result.artefacts)
    record.fit_seconds = sum({f["key"]: f["seconds"] for f in result.fits}.values())
    record.clean_used = result.findings.clean_used
    record.dataset_fingerprint = result.dataset
    record.train_size = result.train_size
    record.notes = list(result.notes)
    if result.target is not None:
        record.target, record.target_name = result.target
    for name, tensor in result.findings.saved.items():
        record.findings |= _save_finding(store, record.key, name, tensor)
    samples = [encode_outputs(name, made, rate) for name, made in result.made.items()]
    samples += [encode_rows(name, rows, rate) for name, rows in result.rows.items()]
    for file, data in (pair for part in samples for pair in part.items()):
        record.findings[file] = store.add_file(store.findings_folder(record.key) / file, data)


def _check_metrics(metrics: dict[str, Metric]) -> None:
    """Raises BadInput for a value that is no number, and for a name that tables have for something else."""
    for name, metric in metrics.items():
        if not isfinite(metric.value):
            raise BadInput(f"the metric {name!r} is {metric.value}: it must be finite")
        if name in (*CELL_COLUMNS, *COST_COLUMNS):
            raise BadInput(f"the metric {name!r} has the name of a column of every table of cells; rename it")


def _save_finding(store: Store, key: str, name: str, tensor: torch.Tensor) -> dict[str, str]:
    """Save a finding as safetensors; also as PNG if it is a picture in [0, 1], or as JSON if it is a list.

    Returns the saved files by name.
    """
    from safetensors.torch import save  # imported late: a worker must ignore Ctrl-C before it imports torch

    from harness.cell.gallery import encode_curve, encode_png  # imported late: a worker must ignore Ctrl-C first

    folder = store.findings_folder(key)
    saved = {name: store.add_file(folder / f"{name}.safetensors", save({name: tensor.contiguous()}))}
    picture = tensor.squeeze()
    shown = bool((picture >= -1e-3).all() and (picture <= 1.001).all())  # other numbers, or NaN, would be no picture
    if shown and (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[0] == 3)):
        pixels = (picture.clamp(0, 1) * 255).round().byte()
        image = encode_png((pixels[..., None] if pixels.ndim == 2 else pixels.permute(1, 2, 0))[None].numpy())
        saved[f"{name}.png"] = store.add_file(folder / f"{name}.png", image)
    elif picture.ndim <= 1:
        saved[f"{name}.values.json"] = store.add_file(folder / f"{name}.values.json", encode_curve(picture.reshape(-1)))
    return saved


def reason_of(error: BaseException) -> str:
    """The error in one line, or one of OUT_OF_MEMORY where that is what torch means."""
    message = one_line(error, 10_000)
    gpu = "CUDA error: out of memory" in message or "CUBLAS_STATUS_ALLOC_FAILED" in message
    if gpu or type(error).__name__ == "OutOfMemoryError":
        return "out of GPU memory"
    if isinstance(error, MemoryError) or "can't allocate memory" in message:
        return "out of memory"
    return f"{type(error).__name__}: {one_line(error) or 'no message'}"


def _trace(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    return text if len(text) <= LONGEST_TRACE else f"{text[:1000]}\n[...]\n{text[-LONGEST_TRACE:]}"
