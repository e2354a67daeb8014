"""Before the first cell: every task is opened once, so that a mistake in the data is one line, and nothing is recorded.

cifar10 takes 13 seconds on one core, sst2 and mnist one; no task of the suite takes longer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import torch

from attacks.base import Attack, check_classes
from attacks.targeted import TargetedAttack, find_trial
from harness.console import duration, format_count, one_line, out
from harness.errors import BadGrid
from harness.grid.grid import Cell
from harness.plugins.registry import Spec, create
from tasks.base import Task
from tasks.caches import forget
from tasks.files import group_parts
from tasks.plugin import BadInput, NotApplicable

SLOW = 2.0  # seconds after which it is said how long it took


def open_tasks(missing: Sequence[Cell], cells: Sequence[Cell], keep: bool) -> None:
    """Load the data of every task that has missing cells, and say what was decided for the user in reading it.

    cells: those of the whole plan. keep: whether this process runs the cells, which then find the data in its memory.
    Raises BadGrid for tasks that cannot be opened, and for attacks that can be run on none of theirs.
    """
    specs = list(dict.fromkeys(cell.task for cell in missing))
    if not specs:
        return
    _say(f"opening {format_count(len(specs), 'task')}: {', '.join(spec.label for spec in specs)}")
    start = time.perf_counter()
    opened: dict[Spec, Task] = {}
    faults: dict[Spec, Exception] = {}
    for spec in specs:
        try:
            opened[spec] = _open(spec)
        except NotApplicable:  # what the cells will say, too
            pass
        except Exception as error:  # a task of the user's own may raise anything
            faults[spec] = error
    if faults:
        raise BadGrid(_describe(faults, opened)) from next(iter(faults.values()))
    seconds = time.perf_counter() - start
    if seconds > SLOW:
        _say(f"opened in {duration(seconds)}")
    _check_attacks(cells, opened)
    if not keep:
        forget()


def refuse_output_among_data(cells: Iterable[Cell], output: Path) -> None:
    """Raises BadGrid if the run's folder would lie among the folders that a task reads: each run would be new data."""
    above = (output.resolve(), *output.resolve().parents)
    for spec in dict.fromkeys(cell.task for cell in cells):
        with suppress(BadInput, NotApplicable):  # opening the task says so
            task = cast(Task, create("tasks", spec.name, dict(spec.options)))
            for top, parts in group_parts(task.files()).items():
                beside = {Path(top, os.path.dirname(part)) for part in parts if Path(top, part).is_dir()}
                if any(folder.resolve() in above for folder in beside):
                    where = f"the run folder {output} lies inside {top}, which {spec.label} reads"
                    raise BadGrid(one_line(f"{where}; choose --out elsewhere"))


def _open(spec: Spec) -> Task:
    """The task with its data read, and that of the tasks which its victims start from; its victim can be built.

    That is tried for one of the user's own choice: a checkpoint may hold what is none.
    """
    task = cast(Task, create("tasks", spec.name, dict(spec.options)))
    for note in task.load().notes:
        _say(f"{spec.label}: {note}")
    source = task.source()
    while source is not None:
        source.load()
        source = source.source()
    if getattr(task, "victim", None) != getattr(type(task), "victim", None):
        with torch.random.fork_rng(devices=[]):  # a new head takes random numbers
            task.model()
    return task


def _describe(faults: dict[Spec, Exception], opened: Iterable[Spec]) -> str:
    """What is wrong with the first of these tasks, which are the others, and the way out."""
    (first, error), *rest = faults.items()
    reason = one_line(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {one_line(error)}"
    others = f" (nor can {', '.join(spec.label for spec, _ in rest)})" if rest else ""
    sound = {spec.name for spec in opened}
    patterns = dict.fromkeys(f"'{spec.label}/*'" if spec.name in sound else spec.name for spec in faults)
    leave_out = f", or leave it out: {' '.join(f'--skip {pattern}' for pattern in patterns)}" if sound else ""
    return f"task {first.name} cannot be opened: {reason}{others}; no cell was run, mend it{leave_out}"


def _check_attacks(cells: Iterable[Cell], opened: dict[Spec, Task]) -> None:
    """Raises BadGrid for an attack that can be run on no task of the plan, for a reason that only the data can tell."""
    seeds: dict[tuple[Spec, Spec], list[int]] = {}
    for cell in cells:
        seeds.setdefault((cell.attack, cell.task), []).append(cell.seed)
    for spec in dict.fromkeys(attack for attack, _ in seeds):
        tasks = [task for attack, task in seeds if attack == spec]
        if not all(task in opened for task in tasks):  # on the others its cells are recorded
            continue
        attack = cast(Attack, create("attacks", spec.name, dict(spec.options)))
        reasons = [_find_obstacle(attack, opened[task], seeds[spec, task]) for task in tasks]
        if all(reasons):
            raise BadGrid(reasons[0] if reasons[0].startswith("attacks.") else f"attacks.{spec.label}: {reasons[0]}")


def _find_obstacle(attack: Attack, task: Task, seeds: Iterable[int]) -> str:
    """Why this attack cannot be run on this task with any of these seeds; nothing where it can."""
    if not (isinstance(attack, TargetedAttack) and attack.targeted):
        try:
            check_classes(task, attack)
        except BadInput as error:
            return one_line(error)
        return ""
    reasons = []
    for seed in dict.fromkeys(seeds):
        try:
            find_trial(attack, task, task.load(), seed)
            return ""
        except NotApplicable:
            return ""  # its cells say so
        except BadInput as error:
            reasons.append(one_line(error))
    return reasons[0]


def _say(line: str) -> None:
    out.print(line, highlight=False, soft_wrap=True)
