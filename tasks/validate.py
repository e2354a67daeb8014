"""Whether rows are what `Samples` says, in words: what a task reads, an attack returns and a defense trains on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tasks.plugin import BadInput
from tasks.samples import Samples

if TYPE_CHECKING:
    from tasks.base import Task


def describe(value: object) -> str:
    """What was handed over, in words: the type, and of a tensor its shape, range and device."""
    if value is None:
        return "nothing"
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    words = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if value.device.type != "cpu" or value.layout != torch.strided:
        return f"{words} on {value.device}" + ("" if value.layout == torch.strided else f", {value.layout}")
    if value.numel() and not value.is_complex():
        words += f" in [{value.min().item():.3g}, {value.max().item():.3g}]"
    return words


def is_plain(value: object, dtype: torch.dtype, ndim: int = 1) -> bool:
    """Whether it is a dense tensor on the CPU, of this type and number of dimensions."""
    dense = isinstance(value, Tensor) and value.device.type == "cpu" and value.layout == torch.strided
    return dense and value.dtype == dtype and value.ndim == ndim  # type: ignore[attr-defined]


def check_read(task: Task, found: object) -> tuple[Samples, Samples]:
    """What a task's `read` returned, if it is a training and a test split; cheap, so that every `load` can afford it.

    Raises BadInput, which names the split and the first row that is wrong.
    """
    if not isinstance(found, tuple) or len(found) != 2 or not all(isinstance(part, Samples) for part in found):
        raise BadInput(f"{task.name}.read returned {describe(found)}; return two tasks.samples.Samples, train and test")
    for name, samples in zip(("train", "test"), found, strict=True):
        check_split(task, name, samples)
    return found


def check_split(task: Task, name: str, samples: Samples) -> None:
    """Raises BadInput where a split has a flaw, or two rows of the same id; one without rows is the matter of
    `tasks.splits`, which knows where they should have come from."""
    if _count(samples.targets) == 0:
        return
    flaw = find_flaw(samples, task, name)
    if not flaw and len(set(samples.ids.tolist())) < len(samples):
        flaw = f"{name} has ids that occur twice; every row of a split needs an id of its own"
    if flaw:
        raise BadInput(f"{task.name}.read: {flaw}")


def find_flaw(
    samples: object, task: Task, name: str, *, raw: bool = True, labels: bool = True, soft: bool = False
) -> str:
    """The first thing that is wrong with rows, in words that begin with a field or with `name`; "" if all is right.

    raw: inputs have the task's raw format and are finite. labels: targets are in range. soft: they may be shares of
    the classes, float (N, K).
    """
    if not isinstance(samples, Samples):
        return f"{name} is {describe(samples)}, expected a tasks.samples.Samples"
    inputs, targets, n = samples.inputs, samples.targets, _count(samples.targets)
    shares = soft and any(is_plain(targets, dtype, 2) for dtype in (torch.float32, torch.float64))
    if not shares and not is_plain(targets, torch.int64):
        return f"targets of {name} are {describe(targets)}, expected int64 (N,)"
    if not is_plain(samples.ids, torch.int64):
        return f"ids of {name} are {describe(samples.ids)}, expected int64 (N,)"
    if not isinstance(inputs, Tensor | list) or _count(inputs) != n or len(samples.ids) != n:
        return f"{name} has {_count(inputs)} inputs, {n} targets and {len(samples.ids)} ids; give each row one of each"
    return (raw and _flaw_of_inputs(inputs, task, name)) or (labels and _flaw_of_targets(targets, task, name)) or ""


def _flaw_of_inputs(inputs: Tensor | list[str], task: Task, name: str) -> str:
    if isinstance(inputs, list):
        wrong = next((row for row, text in enumerate(inputs) if not isinstance(text, str)), None)
        if wrong is not None:
            return f"inputs of {name}: row {wrong} is {describe(inputs[wrong])}, expected a str"
    elif inputs.is_floating_point() and inputs.numel() and not is_finite(inputs):
        rows = (~inputs.reshape(len(inputs), -1).isfinite()).any(1).nonzero().flatten()
        return f"inputs of {name} are NaN or infinite in {len(rows)} of {len(inputs)} rows, the first is row {rows[0]}"
    if not task.is_raw(inputs):
        return f"inputs of {name} are {describe(inputs)}; a task for {task.modality} has {task.raw_format}"
    return ""


def _flaw_of_targets(targets: Tensor, task: Task, name: str) -> str:
    if targets.ndim == 2:
        fits = targets.shape[1] == len(task.classes) and (not len(targets) or is_finite(targets))
        return "" if fits else f"targets of {name} are {describe(targets)}, expected finite (N, {len(task.classes)})"
    bad = ((targets < 0) | (targets >= task.conditions)).nonzero().flatten()
    if not len(bad):
        return ""
    row = int(bad[0])
    return f"a label of {name} is not in 0 to {task.conditions - 1}, as `classes` says: row {row} has {targets[row]}"


def is_finite(values: Tensor) -> bool:
    """Whether no value of a tensor is NaN or infinite; takes no memory."""
    if not values.numel():
        return True
    low, high = values.aminmax()  # a NaN anywhere is the result of both
    return bool(low.isfinite() and high.isfinite())


def _count(rows: object) -> int:
    """The number of rows; 0 of what has none."""
    return len(rows) if isinstance(rows, list) or (isinstance(rows, Tensor) and rows.ndim) else 0
