"""The share of a cell in which the device has nothing to do: what the harness and Python cost on a GPU."""

from __future__ import annotations

from collections.abc import Iterable

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpu.stage import Stage
from gpu.victims import load_tasks
from harness.cell.steps import Result, run_steps
from harness.plugins.registry import create
from harness.store.folder import Store
from tasks.base import Task

NAMES = ("digits", "fashion_mnist", "sst2", "fsdd", "digits_generator", "classic_books")
ATTACKS = {"text": "badwords", "audio": "tone_clip", "language": "steering"}  # of others, the modality's plain attack


def measure(stage: Stage) -> None:
    for name, task, _ in load_tasks(NAMES[:1] if stage.shrink else NAMES, stage.shrink):
        if stage.figures.known("a cell", task=name, attack=attack_on(task)) is None:
            stage.need(8)
            measure_cell(stage, name, task)


def measure_cell(stage: Stage, name: str, task: Task) -> None:
    """Three cells of three seeds: the first to warm up, the second against the clock, the third under the profiler."""
    attack, store = attack_on(task), Store(stage.work / "store")

    def run(seed: int) -> Result:
        return run_steps(
            task, create("attacks", attack), 10, create("defenses", "none"), seed, store, stage.device  # type: ignore[arg-type]
        )  # fmt: skip

    run(0)
    start = stage.clock()
    result = run(1)
    seconds = stage.clock() - start
    kind = ProfilerActivity.CUDA if stage.device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[kind], acc_events=True) as profiler:
        run(2)
        stage.finish()
    wanted = DeviceType.CUDA if stage.device.type == "cuda" else DeviceType.CPU
    events = [e.time_range for e in profiler.events() if e.device_type == wanted]
    busy = covered((e.start, e.end) for e in events) / 1e6
    stage.figures.add("a cell", seconds, "s", task=name, attack=attack)
    for step, took in result.seconds.items():
        stage.figures.add(step, took, "s", task=name, attack=attack)
    stage.figures.add("device at work", busy, "s", task=name, attack=attack)
    stage.figures.add("device idle", max(0.0, 100 * (1 - busy / seconds)), "%", task=name, attack=attack)


def attack_on(task: Task) -> str:
    return ATTACKS.get(task.modality, task.plain_attack)


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
