"""The command that freezes trials for targeted attacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.console import out


def trials(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task's name.")],
    to: Annotated[Path, typer.Option("--out", help="The JSON file to write; an attack takes it as `trials`.")],
    count: Annotated[int, typer.Option(min=1, help="How many trials.")] = 24,
    bases: Annotated[int, typer.Option(min=1, help="Training rows per trial: the largest dose.")] = 50,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Task options: train_size=1000; repeatable.")
    ] = None,
) -> None:
    """Freeze trials for targeted attacks: target instance, wanted class and base rows, drawn once and written down.

    They fit every run with the same subset_seed and reserve_size and no smaller train_size and test_size.

    Example:  tinydrop trials digits --set train_size=1000 --out my_trials.json
    """
    import torch

    from harness.cell.trials import draw_trials
    from harness.grid.read import split_change
    from harness.plugins.registry import create
    from harness.store.folder import write_atomically
    from tasks.base import Task

    options = dict(split_change(change, "train_size=1000") for change in changes or [])
    chosen = create("tasks", task, options)
    assert isinstance(chosen, Task)
    drawn = draw_trials(chosen, count, bases, torch.device("cpu"))
    lines = ",\n ".join(json.dumps(trial) for trial in drawn)
    write_atomically(to, f"[{lines}]\n")
    out.print(f"{len(drawn)} trials written: {to}", highlight=False, soft_wrap=True)
