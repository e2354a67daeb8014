"""Whether trigger and poison reach the victim: what it reads, encoded and not augmented, against the clean rows."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from attacks.base import Attack
from harness.cell.metrics import Metric, mean
from tasks.base import ENCODED, Task
from tasks.plugin import BadInput
from tasks.samples import Challenge, Samples

RELATIVE, ABSOLUTE = 1e-5, 1e-6  # of encoded floats: a hundred times what float32 rounds away, far below any trigger


def reach_of_trigger(
    task: Task, attack: Attack, challenge: Challenge, test: Samples, device: torch.device
) -> dict[str, Metric]:
    """`trigger_seen`: the share of the challenge that the victim reads otherwise than the same inputs without trigger.

    Those are the challenge's `plain` where it has one, and else the test rows of the same ids. {} where there is
    nothing to compare: an attack that leaves the challenge as it is (`Attack.alters`), or inputs that are no test rows.
    Raises BadInput where the share is 0.
    """
    asked = challenge.inputs
    plain = _find_rows(test, asked) if challenge.plain is None else challenge.plain
    if "challenge" not in attack.alters or plain is None or not len(asked):
        return {}
    seen = mean(read_differently(task, asked, plain, device, conditions=challenge.plain is not None))
    _refuse_unseen(task, attack, seen, f"the trigger changes none of the {seen.n} challenge inputs")
    return {"trigger_seen": seen}


def reach_of_poison(
    task: Task, attack: Attack, poison: Samples, clean: Samples, device: torch.device, *, conditions: bool
) -> dict[str, Metric]:
    """`poison_seen`: the share of poisoned rows that the victim reads otherwise than the clean rows they replaced.

    Row i of `poison` took the place of row i of `clean`. {} without rows, and for an attack that changes labels only.
    conditions: as in `read_differently`. Raises BadInput where the share is 0.
    """
    if "poison" not in attack.alters or not len(clean):
        return {}
    seen = mean(read_differently(task, poison, clean, device, conditions=conditions))
    _refuse_unseen(task, attack, seen, f"the poison changes none of the {seen.n} rows that it replaces")
    return {"poison_seen": seen}


def read_differently(task: Task, ours: Samples, clean: Samples, device: torch.device, *, conditions: bool) -> Tensor:
    """(N,) bool: where the victim reads row i of `ours` otherwise than row i of `clean`.

    conditions: targets are part of what is read, as a generative model's are.
    Rows whose raw inputs are equal are read alike. Others are encoded in one batch, which gives both the same shape,
    and floats count as equal within RELATIVE and ABSOLUTE, since rounding depends on a row's place in the batch.
    """
    seen = _differ(ours.inputs, clean.inputs)
    changed = seen.nonzero().flatten()
    for at in range(0, len(changed), ENCODED // 2):
        rows = changed[at : at + ENCODED // 2]
        both = task.encode(ours.select(rows).append(clean.select(rows)), device).reshape(2 * len(rows), -1)
        new, old = both.chunk(2)
        alike = torch.isclose(new, old, RELATIVE, ABSOLUTE, equal_nan=True) if both.is_floating_point() else new == old
        seen[rows] = ~alike.all(1).cpu()
    return seen | (ours.targets != clean.targets) if conditions else seen


def _differ(a: Tensor | list[str], b: Tensor | list[str]) -> Tensor:
    """(N,) bool: which raw inputs are not equal."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.ne(b).reshape(len(a), -1).any(1)
    return torch.tensor([x != y for x, y in zip(a, b, strict=True)], dtype=torch.bool)


def _find_rows(test: Samples, asked: Samples) -> Samples | None:
    """The test rows of the same ids; None where the inputs are others."""
    if not torch.isin(asked.ids, test.ids).all():
        return None
    return test.select(test.positions(asked.ids))


def _refuse_unseen(task: Task, attack: Attack, seen: Metric, what: str) -> None:
    """Raises BadInput where nothing is seen; it names the attack with the options that are not its defaults."""
    if seen.value:
        return
    changed = [f"{f.name}={v!r}" for f in fields(attack) if (v := getattr(attack, f.name)) != f.default]  # type: ignore[arg-type]
    name = f"{attack.name}({', '.join(changed)})" if changed else attack.name
    length = getattr(task, "length", None)
    cut = f" (it reads {length} tokens of a text)" if length else ""
    instead = "no attack" if attack.clean_label else "label flipping"
    raise BadInput(
        f"{name}: {what} as the victim of {task.name} reads them{cut}: what would be measured is {instead}; "
        f"change its options, or `alters` of its class where that is meant"
    )
