"""What a defense hands to its case, checked at the call, so that nothing is trained on or graded that means nothing."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from numbers import Real
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from harness.console import one_line
from tasks.base import Recipe, Task
from tasks.deployed import Victim
from tasks.plugin import BadInput
from tasks.validate import describe, find_flaw

MOST_SAVED = 16_000_000  # numbers of one finding: 64 MB
LONGEST_NAME = 60  # characters of a finding's name, which is a file's
TAKEN = ("triggered", "plain", "near")  # files of a generative model's answers lie beside the findings


@contextmanager
def named(who: str) -> Iterator[None]:
    """Puts the name of the defense, where there is one, before a BadInput about what it handed over."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{who}: {error}" if who else str(error)) from error


def read_suspicion(value: object, n: int) -> Tensor:
    """report(train=): (N,) float32, a copy. Numbers of any type; inf and -inf can be ordered, NaN cannot."""
    given = _rows("train", value, n, "one number for each row of case.train")
    if given.dtype == torch.bool or given.is_complex():
        raise BadInput(f"report(train=): {describe(given)}, expected numbers; `flagged` takes a mask")
    found = given.to("cpu", torch.float32, copy=True)
    bad = int(found.isnan().sum())
    if bad:
        raise BadInput(f"report(train=) is NaN for {bad} of {n} rows; give each a number, inf and -inf allowed")
    if bool((found.isinf() & ~given.cpu().isinf()).any()):
        raise BadInput(f"report(train=): {describe(given)} is beyond float32; scale it down, or report ranks")
    return found


def read_flags(value: object, n: int) -> Tensor:
    """report(flagged=): (N,) bool, a copy."""
    flags = _rows("flagged", value, n, "True where a row of case.train is believed to be poison")
    if flags.dtype != torch.bool:
        raise BadInput(f"report(flagged=): {describe(flags)}, expected bool ({n},); of scores say `scores > threshold`")
    return flags.to("cpu", copy=True)


def read_model_suspicion(value: object) -> float:
    """report(model=): one finite number."""
    if isinstance(value, Tensor) and value.numel() == 1 and value.dtype != torch.bool and not value.is_complex():
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        got = (
            repr(value)
            if isinstance(value, str | bool)
            else float(value)
            if isinstance(value, Real)
            else describe(value)
        )
        raise BadInput(f"report(model={got}): expected one finite number, the suspicion of the model as a whole")
    return float(value)


def read_class(value: object, task: Task) -> int:
    """report(target=): a class, by its number."""
    k = len(task.classes)
    target = _whole(value)
    if target is None or not 0 <= target < k:
        got = value if isinstance(value, int | float | str) else describe(value)
        raise BadInput(f"report(target={got!r}): expected the number of a class of {task.name}, 0 to {k - 1}")
    return target


def read_count(value: object) -> int:
    """clean(n): a number of rows."""
    n = _whole(value)
    if n is None or n < 1:
        raise BadInput(
            f"clean(n={value if isinstance(value, int | float | str) else describe(value)}): ask for 1 row or more"
        )
    return n


def read_finding(name: object, value: object) -> Tensor:
    """save(name, tensor): float32 on the CPU, a copy."""
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or len(name) > LONGEST_NAME:
        raise BadInput(f"save(name={str(name)[:80]!r}): use up to {LONGEST_NAME} letters, digits and underscores")
    if name in TAKEN:
        raise BadInput(f"save(name={name!r}): that is where a model's answers are shown; use another name")
    if not isinstance(value, Tensor) or value.is_complex() or value.layout != torch.strided:
        raise BadInput(f"save({name!r}): got {describe(value)}, expected a tensor of real numbers")
    if not 0 < value.numel() <= MOST_SAVED:
        raise BadInput(f"save({name!r}): {value.numel():,} numbers, valid: 1 to {MOST_SAVED:,}; keep a summary")
    return value.detach().float().cpu().clone(memory_format=torch.contiguous_format)


def check_fit(task: Task, samples: object, init: object, seed: object, loss: object) -> None:
    """Raises BadInput for what no victim can be trained on, or would be trained on in silence to no use.

    With a loss of one's own, targets may be numbers that only that loss understands.
    """
    flaw = find_flaw(samples, task, "samples", labels=loss is None, soft=True)
    if flaw:
        raise BadInput(f"fit: {flaw}")
    if not len(samples):  # type: ignore[arg-type]
        raise BadInput("fit: the training set is empty (a filter dropped every row)")
    if init is not None and not isinstance(init, Victim):
        raise BadInput(f"fit: init is {describe(init)}, expected a victim, as case.fit returns it")
    if seed is not None and (_whole(seed) is None or not -(2**63) <= int(seed) < 2**64):  # type: ignore[call-overload]
        raise BadInput(f"fit: seed={seed!r}: expected a whole number below 2**64")
    if loss is not None and not callable(loss):
        raise BadInput(f"fit: loss is {describe(loss)}, expected (module, batch) -> the loss of every row")


def change_recipe(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with these fields changed; raises BadInput for a field that it does not have, or a value not valid."""
    unknown = set(changes) - set(vars(recipe))
    if unknown:
        raise BadInput(f"fit: unknown recipe field {sorted(unknown)[0]!r}; valid: {', '.join(sorted(vars(recipe)))}")
    for name, value in changes.items():
        number = isinstance(getattr(recipe, name), int | float) and name != "augment"
        wrong = isinstance(value, bool) if number or name == "dp_clip" else name == "augment" and value not in (0, 1)
        if wrong or (isinstance(value, Real) and not math.isfinite(value)):
            raise BadInput(
                f"fit: {name}={value!r}: expected {'a finite number' if name != 'augment' else 'True or False'}"
            )
    try:
        return replace(recipe, **changes)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"fit: {first['loc'][0]}={first['input']!r}: {one_line(first['msg'])}") from None


def check_loss(value: object, rows: int, loss: Callable[..., Any]) -> Tensor:
    """What a loss returned for a batch of so many rows, if it can be learnt from: float, (B,) or one number."""
    fine = isinstance(value, Tensor) and value.is_floating_point() and value.shape in ((), (rows,))
    if isinstance(value, Tensor) and fine and value.requires_grad:
        return value
    got = f"{describe(value.detach())} without gradients" if isinstance(value, Tensor) and fine else describe(value)
    raise BadInput(
        f"fit: loss={name_of(loss)} returned {got}, expected float ({rows},) or one number, made by the module"
    )


def name_of(loss: Callable[..., Any]) -> str:
    """The name of a loss, of which functools.partial may hold the function."""
    inner = getattr(loss, "func", loss)
    return str(getattr(inner, "__qualname__", type(inner).__name__)).rpartition("<locals>.")[2]


def _rows(field: str, value: object, n: int, what: str) -> Tensor:
    if not isinstance(value, Tensor) or value.shape != (n,) or value.layout != torch.strided:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else describe(value)
        raise BadInput(f"report({field}=): {got}, expected a tensor of shape ({n},): {what}")
    return value.detach()


def _whole(value: object) -> int | None:
    """A whole number of any integer type; None for booleans and all else."""
    if isinstance(value, bool) or (isinstance(value, Tensor) and (value.dtype == torch.bool or value.numel() != 1)):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None
