"""Training does not wait for the device within an epoch, and graphs change nothing; seen without a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import CLASSIFIED, EXAMPLES, tiny
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.cell import train
from harness.cell.graphs import Graphed
from harness.cell.train import train_victim
from harness.testing.checks import CPU
from tasks._models import transformer
from tasks.base import Batch

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique2", "_unique2", "equal")  # on a GPU


class Waits(TorchDispatchMode):
    """Counts what would end all earlier work of a GPU, since Python needs its values."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in WAITING or by_mask:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", EXAMPLES.values())
def test_once_an_epoch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one check is whether the loss is still finite. Fused AdamW of a GPU reads nothing; that of the CPU does.

    transformers looks in every step whether several texts share a row.
    """
    monkeypatch.setattr(train, "make_optimizer", lambda module, recipe: torch.optim.SGD(module.parameters(), 1e-4))
    monkeypatch.setattr(transformer, "crop_padding", lambda e: e)  # what it does on a GPU
    task = tiny(name)
    samples = task.load().train
    task.rows(samples, CPU)  # a tokenizer is trained, once
    waits = Waits()
    recipe = replace(task.recipe(), epochs=3)
    module = train.make_network(task, recipe, 0, CPU, None)
    x, y = task.rows(samples, CPU)
    with waits:
        train._train(task, module, x, y, recipe, 0, None, "none")
    steps = 3 * -(-len(x) // recipe.batch_size) if task.modality == "language" else 0
    assert waits.counts == {"_local_scalar_dense": 3 + steps}


def warm_up_and_return(module: nn.Module, args: tuple[Tensor]) -> Callable[[Tensor], Tensor]:
    """What torch.cuda.make_graphed_callables does before it captures, which takes a GPU."""
    assert not torch.is_autocast_cache_enabled()
    for _ in range(3):
        module(*args)
    return module


@pytest.mark.parametrize("name", [EXAMPLES[m] for m in CLASSIFIED])
def test_graphs_change_no_statistics(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = []
    monkeypatch.setattr(
        torch.cuda, "make_graphed_callables", lambda m, a: captured.append(a[0].shape) or warm_up_and_return(m, a)
    )
    task = tiny(name)
    samples = task.load().train.select(range(70))
    recipe = replace(task.recipe(), batch_size=32)  # batches of 24, 23 and 23
    plain, graphed = (
        train_victim(task, samples, recipe=recipe, seed=0, device=CPU, speedup=s) for s in ("none", "graphs")
    )
    assert sorted(shape[0] for shape in captured) == [23, 24]
    for a, b in zip(plain.module.state_dict().values(), graphed.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_no_graph_of_a_loss_that_looks_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def loss(module: Any, batch: Batch) -> Tensor:
        seen.append(isinstance(module, Graphed))
        return task.loss(module, batch) + module.features(batch.x).mean()

    task = tiny("digits")
    train_victim(task, task.load().train, recipe=task.recipe(), seed=0, device=CPU, loss=loss, speedup="graphs")
    assert seen
    assert not any(seen)
    generator = tiny("digits_generator")
    train_victim(generator, generator.load().train, recipe=generator.recipe(), seed=0, device=CPU, speedup="graphs")
