"""Language models of several sizes: how fast they train, and whether the same poison gets into each.

For the question whether the number of poisoned documents that it takes grows with the model (Souly et al., 2025, arXiv
2510.07192). A base is trained once for each size; victims are fine-tuned from it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from attacks.base import Attack
from defenses.base import Defense
from gpu.stage import Stage
from harness.cell.case import Fitter
from harness.cell.steps import run_steps
from harness.cell.train import train_victim
from harness.plugins.registry import create
from harness.store.folder import Store
from tasks.base import Task, load_unsealed
from tasks.language import LanguageTask
from tasks.plugin import BadInput
from tasks.samples import Samples

SIZES: dict[str, dict[str, Any]] = {  # width, depth and heads; the rate falls with the width
    "10 million": {"width": 384, "depth": 6, "heads": 6, "base_lr": 1e-3, "lr": 5e-4},
    "35 million": {"width": 640, "depth": 7, "heads": 10, "base_lr": 6e-4, "lr": 3e-4},
    "90 million": {"width": 768, "depth": 12, "heads": 12, "base_lr": 4e-4, "lr": 2e-4},
}
DOSES = (0, 30)
WIDE = 64  # rows of a batch that fills a GPU better than the default of 8 does


def measure(stage: Stage) -> None:
    store = Store(stage.work / "store")
    sizes = {"smallest": {"width": 32, "depth": 1, "heads": 2}} if stage.shrink else SIZES
    for about, size in sizes.items():
        if stage.figures.known(f"perplexity at dose {doses(stage)[-1]}", size=about) is not None:
            continue
        stage.need(15)
        try:
            measure_size(stage, store, about, make_task(size, stage.shrink))
        except BadInput as error:
            stage.say(f"left out: {error}")


def make_task(size: dict[str, Any], shrink: bool) -> LanguageTask:
    if not shrink:
        return cast("LanguageTask", create("tasks", "classic_books", size))
    small = {"train_size": 40, "test_size": 8, "reserve_size": 8, "epochs": 1, "base_size": 20, "base_epochs": 1}
    return cast("LanguageTask", create("tasks", "synthetic_stories", {**small, **size}))


def measure_size(stage: Stage, store: Store, about: str, task: LanguageTask) -> None:
    base = task.base()
    samples = load_unsealed(base).train
    fit = Fitter(base, store, stage.device, 0)
    start = stage.clock()
    module = fit(samples).module
    seconds = stage.clock() - start
    weights = sum(p.numel() for p in module.parameters())
    tokens = base.rows(samples, stage.device)[0].numel() * base.recipe().epochs
    stage.figures.add("weights", weights / 1e6, "million", size=about)
    stage.figures.add("base", seconds, "s", size=about)
    stage.figures.add("base", tokens / seconds, "tokens/s", size=about)
    stage.figures.add("base", 6 * weights * tokens / seconds / 1e12, "TFLOP/s", size=about)
    measure_wide(stage, base, samples, weights, about)
    for dose in doses(stage):
        stage.need(5)
        attack, defense = cast("Attack", create("attacks", "steering")), cast("Defense", create("defenses", "none"))
        start = stage.clock()
        result = run_steps(cast("Task", task), attack, dose, defense, 0, store, stage.device)
        stage.figures.add(f"a cell at dose {dose}", stage.clock() - start, "s", size=about)
        stage.figures.add(f"asr at dose {dose}", result.metrics["asr"].value, "share", size=about)
        stage.figures.add(f"perplexity at dose {dose}", result.metrics["utility"].value, "of a token", size=about)


def doses(stage: Stage) -> tuple[int, ...]:
    return (2,) if stage.shrink else DOSES


def measure_wide(stage: Stage, base: LanguageTask, samples: Samples, weights: int, about: str) -> None:
    """The speed at WIDE rows a batch, the second of two short trainings."""
    few = samples.select(range(min(len(samples), 200)))
    recipe = replace(base.recipe(), epochs=1, batch_size=WIDE)
    for _ in range(2):
        start = stage.clock()
        train_victim(base, few, recipe=recipe, seed=0, device=stage.device)
        seconds = stage.clock() - start
    tokens = base.rows(few, stage.device)[0].numel()
    stage.figures.add(f"batches of {WIDE}", tokens / seconds, "tokens/s", size=about)
    stage.figures.add(f"batches of {WIDE}", 6 * weights * tokens / seconds / 1e12, "TFLOP/s", size=about)
