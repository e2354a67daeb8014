"""Training alone: seconds a victim and rows a second of every task, by speedup, and of the processor beside it.

The first epoch of a shape is not timed: libraries choose their kernels in it. Victims that usually start from a base
start from random weights here, since a step takes as long.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from gpu.stage import Stage
from gpu.victims import choose_tasks, classifies, load_tasks
from harness.cell.speedup import Speedup
from harness.cell.train import make_network, train_victim
from tasks.base import Batch, Recipe, Task
from tasks.deployed import autocast, layout
from tasks.plugin import BadInput
from tasks.samples import Samples

COMPILED = ("digits", "cifar10", "fsdd")  # compiling takes up to a minute
COMPILE_SECONDS = 45  # left at least, to begin with one
FIRST, SECOND = "compile, first of a process", "compile, second of a process"
CPU_ROWS = 512


def measure(stage: Stage) -> None:
    peak = measure_peak(stage, stage.device)
    found = []
    for name, task, samples in load_tasks(choose_tasks(stage.shrink), stage.shrink):
        stage.need(10)
        found.append((name, task, samples))
        if stage.figures.known("a victim", task=name, speedup="none") is None:
            stage.say(f"{name}, {len(samples)} rows")
            try:
                measure_task(stage, name, task, samples, peak)
            except BadInput as error:  # such as a base model that needs more rows than a small pack of data has
                stage.say(f"left out: {error}")
    for name, task, samples in found:
        if name in COMPILED and stage.figures.known("a victim", task=name, speedup=SECOND) is None:
            stage.need(COMPILE_SECONDS)
            measure_compiled(stage, name, task, samples)


def measure_peak(stage: Stage, device: torch.device) -> float:
    """Operations a second of a large product of bfloat16 matrices of random numbers."""
    size = 256 if stage.shrink else 8192
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    for _ in range(3):
        a @ b
    start = stage.clock()
    for _ in range(10):
        a @ b
    rate = 10 * 2 * size**3 / (stage.clock() - start)
    stage.figures.add("matrix product, bf16", rate / 1e12, "TFLOP/s", size=size)
    return rate


def measure_task(stage: Stage, name: str, task: Task, samples: Samples, peak: float) -> None:
    recipe, device = task.recipe(), stage.device
    operations = count_operations(task, samples, recipe, device)
    x, _ = task.rows(samples, device)
    rows, length = len(x), x.shape[1] if x.ndim == 2 and not x.is_floating_point() else 1
    speedups: tuple[Speedup, ...] = ("none", "graphs") if classifies(task) and device.type == "cuda" else ("none",)
    for speedup in speedups:
        seconds = time_training(stage, task, samples, recipe, device, speedup)
        of = {"task": name, "speedup": speedup}
        stage.figures.add("a victim", seconds, "s", **of)
        rate = rows * recipe.epochs / seconds
        stage.figures.add("trained on", rate, "rows/s", **of)
        if length > 1:
            stage.figures.add("of them", rate * length, "tokens/s", **of)
        if recipe.frozen == "none":  # a frozen body is run once, not in every epoch
            stage.figures.add("of the peak", 100 * operations * rate / peak, "%", **of)
    few = samples.select(range(min(CPU_ROWS, len(samples))))
    once, cpu = replace(recipe, epochs=1), torch.device("cpu")
    seconds = time_training(stage, task, few, once, cpu)
    there = len(task.rows(few, cpu)[0])
    how = f"CPU, {torch.get_num_threads()} threads"
    stage.figures.add("trained on", there / seconds, "rows/s", task=name, speedup=how)


def time_training(
    stage: Stage, task: Task, samples: Samples, recipe: Recipe, device: torch.device, speedup: Speedup = "none"
) -> float:
    """Seconds of a whole training, after an epoch that is not counted."""
    train_victim(task, samples, recipe=replace(recipe, epochs=1), seed=0, device=device, speedup=speedup)
    start = stage.clock()
    train_victim(task, samples, recipe=recipe, seed=1, device=device, speedup=speedup)
    return stage.clock() - start


def measure_compiled(stage: Stage, name: str, task: Task, samples: Samples) -> None:
    """The first victim of a process, which waits for the compiler, and the second, which does not."""
    if stage.shrink:
        task = replace(task, victim="linear")  # type: ignore[call-arg]  # of the CNN, compiling takes a minute
    for speedup in (FIRST, SECOND):
        start = time.perf_counter()
        train_victim(task, samples, recipe=task.recipe(), seed=0, device=stage.device, speedup="compile")
        stage.figures.add("a victim", stage.clock() - start, "s", task=name, speedup=speedup)


def count_operations(task: Task, samples: Samples, recipe: Recipe, device: torch.device) -> float:
    """Floating-point operations of a row, forward and backward; those of products and convolutions, as is usual."""
    module = make_network(task, recipe, 0, device, None).train()
    x, y = (part[: recipe.batch_size] for part in task.rows(samples, device))
    rows = torch.arange(len(x), device=device)
    batch = Batch(layout(x), y, rows, torch.Generator(device).manual_seed(0), progress=0.0)
    with FlopCounterMode(display=False) as counter, autocast(device):
        task.loss(module, batch).mean().backward()
    return counter.get_total_flops() / len(x)
