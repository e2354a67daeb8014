"""Training: one loop for every victim. It is seeded, and depends on nothing but its arguments."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.cell.arguments import check_loss, name_of
from harness.cell.dp import privatise, without_batch_norm
from harness.cell.graphs import Graphed
from harness.cell.speedup import Speedup
from harness.errors import Diverged
from tasks.base import Batch, Recipe, Task
from tasks.deployed import CHUNK, Victim, autocast, layout
from tasks.net import Net
from tasks.plugin import BadInput, NotApplicable
from tasks.samples import Samples

Loss = Callable[[Net, Batch], Tensor]


def make_network(task: Task, recipe: Recipe, seed: int, device: torch.device, init: Victim | None) -> Net:
    """The network before its first step: a copy of init's, or a fresh one whose weights the seed alone determines."""
    with isolate_seed(seed, device):
        module: Any = copy.deepcopy(init.module) if init else task.model()
    if recipe.dp_clip is not None:
        module = without_batch_norm(module)
    return module.to(device, memory_format=module.memory_format(device))  # type: ignore[no-any-return]


def train_victim(
    task: Task,
    samples: Samples,
    *,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    init: Victim | None = None,
    loss: Loss | None = None,
    speedup: Speedup = "none",
) -> Victim:
    """Train a victim on samples. Same arguments, same weights, bit for bit on one CPU with one thread count.

    Trees are grown; steps then follow only where a defense trains a victim on, or with a loss of its own.
    Raises BadInput for an empty training set, Diverged when the loss is not finite, NotApplicable for private trees.
    """
    if not len(samples):
        raise BadInput("fit: the training set is empty (a filter dropped every row)")
    module = make_network(task, recipe, seed, device, init)
    if module.grows and recipe.dp_clip is not None:
        raise NotApplicable(f"dp_clip: the trees of {task.name} are grown from the data themselves, without privacy")
    with isolate_seed(seed, device):  # dropout and trees draw from the global state
        x, y = task.rows(samples, device)
        if module.grows and init is None:
            module.grow(x, y)
        if not module.grows or init or loss:
            _train(task, module, x, y, recipe, seed, loss, speedup)
    return task.deploy(module.eval(), device)


@contextmanager
def isolate_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global state for a block and give it back as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def make_optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or Nesterov SGD over what is trainable."""
    params = [p for p in module.parameters() if p.requires_grad]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(params, recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay)
    fused = params[0].device.type == "cuda"
    return torch.optim.AdamW(params, recipe.lr, weight_decay=recipe.weight_decay, fused=fused)


def set_trainable(module: Net, recipe: Recipe) -> None:
    """Let every weight learn, or with a frozen body those of the head alone."""
    module.requires_grad_(recipe.frozen == "none")
    module.head.requires_grad_(True)


@dataclass
class Stepper:
    """What one step of training takes, the same for every batch."""

    forward: Any  # what the loss calls on a batch: the network, sped up perhaps, or its head on cached features
    loss: Loss
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler | None
    precision: AbstractContextManager[None]

    def step(self, batch: Batch) -> Tensor:
        """One step down the mean loss of a batch; returns that loss."""
        with self.precision:
            value = check_loss(self.loss(self.forward, batch), len(batch.x), self.loss).mean()
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        return value.detach()


def _train(
    task: Task, module: Net, x: Tensor, y: Tensor, recipe: Recipe, seed: int, loss: Loss | None, speedup: Speedup
) -> None:
    """Train a network in place, by all epochs of the recipe, on encoded rows x (N, ...) with targets y (N, ...)."""
    set_trainable(module, recipe)
    optimizer, private = make_optimizer(module, recipe), recipe.dp_clip is not None
    forward: Any = module
    if recipe.frozen == "body" and not (recipe.augment or loss or private):
        x, forward = _features(module, x), module.head  # the same in every epoch, so computed once
    elif not private:
        forward = speed_up(module, speedup, plain=loss is None and type(task).loss is Task.loss)
    batches = math.ceil(len(x) / recipe.batch_size)
    clipping = privatise(module, optimizer, recipe, len(x), batches, seed) if private else nullcontext(optimizer)
    with clipping as optimizer:
        # What is clipped are gradients in float32.
        precision = nullcontext() if private else autocast(x.device)
        schedule = _schedule(optimizer, recipe, recipe.epochs * batches)
        stepper = Stepper(forward, loss or task.loss, optimizer, schedule, precision)
        order, rng = torch.Generator().manual_seed(seed), torch.Generator(x.device).manual_seed(seed)
        for epoch in range(recipe.epochs):
            forward.train(recipe.frozen == "none")  # a frozen body keeps its batch-norm statistics too
            module.head.train()  # linear, so the same in both modes, but opacus looks at layers in train mode only
            total = torch.zeros((), device=x.device)
            for batch in _batches(task, x, y, recipe, epoch, order, rng):
                total += stepper.step(batch)
            if not torch.isfinite(total):
                raise Diverged(
                    f"the training loss is not finite after {(epoch + 1) * batches} steps "
                    f"(lr={recipe.lr}, epochs={recipe.epochs}{f', loss={name_of(loss)}' if loss else ''})"
                )


def speed_up(module: Net, speedup: Speedup, plain: bool) -> Any:
    """The network as a loss calls it. plain: the loss does nothing with it but call it on encoded rows, which is all
    that a graph can do; with other losses, those of generative tasks too, `graphs` changes nothing."""
    if speedup == "compile":
        return torch.compile(module)
    return Graphed(module) if speedup == "graphs" and plain else module


def _batches(
    task: Task, x: Tensor, y: Tensor, recipe: Recipe, epoch: int, order: torch.Generator, rng: torch.Generator
) -> Iterator[Batch]:
    """One epoch's batches in random order. Lazily: augmentation and loss draw from `rng` by turns."""
    batches = math.ceil(len(x) / recipe.batch_size)
    last = max(1, recipe.epochs * batches - 1)
    parts = torch.randperm(len(x), generator=order).to(x.device).tensor_split(batches)
    for step, rows in enumerate(parts, start=epoch * batches):
        xb = task.augment(x[rows], rng) if recipe.augment else x[rows]
        yield Batch(layout(xb), y[rows], rows, rng, progress=step / last)


def _schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """The one-cycle schedule over so many steps; None for a constant rate."""
    if recipe.schedule == "constant":
        return None
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=max(steps, 10))


@torch.no_grad()
def _features(module: Net, x: Tensor) -> Tensor:
    """(N, D) float32 what the head sees of encoded rows, in evaluation mode."""
    module.eval()
    with autocast(x.device):
        return torch.cat([module.features(layout(part)).float() for part in x.split(CHUNK)])  # type: ignore[no-untyped-call]
