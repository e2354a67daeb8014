"""Training: one loop for every victim, seeded; its only inputs are its arguments."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import Diverged
from tasks.base import Batch, Recipe, Task
from tasks.deployed import CHUNK, Victim, autocast, layout
from tasks.net import Net
from tasks.plugin import BadInput
from tasks.samples import Samples

Loss = Callable[[Net, Batch], Tensor]


def blank(task: Task, recipe: Recipe, seed: int, device: torch.device, init: Victim | None) -> Net:
    """The network before its first step: a copy of init's, or a fresh one whose weights the seed alone determines."""
    with isolated_seed(seed, device):
        module = copy.deepcopy(init.module) if init else task.model()
    if recipe.dp_clip is not None:
        from harness.cell.dp import without_batch_norm

        module = without_batch_norm(module)
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def train_victim(
    task: Task,
    samples: Samples,
    *,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    init: Victim | None = None,
    loss: Loss | None = None,
    compiled: bool = False,
) -> Victim:
    """Train a victim on samples. Same arguments, same weights, bit for bit on one CPU with one thread count.

    Raises BadInput for an empty training set, Diverged when the loss is not finite.
    """
    if not len(samples):
        raise BadInput("fit: the training set is empty (a filter dropped every row)")
    module = blank(task, recipe, seed, device, init)
    with isolated_seed(seed, device):  # dropout draws from the global state
        _run(task, module, *task.rows(samples, device), recipe, seed, loss, compiled)
    return task.deploy(module.eval(), device)


@contextmanager
def isolated_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global state for a block and give it back as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def optimiser(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or Nesterov SGD over what is trainable."""
    params = [p for p in module.parameters() if p.requires_grad]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(params, recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay)
    fused = params[0].device.type == "cuda"
    return torch.optim.AdamW(params, recipe.lr, weight_decay=recipe.weight_decay, fused=fused)


def freeze_body(module: Net) -> None:
    """Train the head only."""
    for p in module.parameters():
        p.requires_grad_(False)
    for p in module.head.parameters():
        p.requires_grad_(True)


@torch.no_grad()
def _features(module: Net, x: Tensor) -> Tensor:
    """(N, D) float32 what the head sees of encoded rows, in evaluation mode."""
    module.eval()
    with autocast(x.device):
        return torch.cat([module.features(layout(part)).float() for part in x.split(CHUNK)])  # type: ignore[no-untyped-call]


def _run(
    task: Task, module: Net, x: Tensor, y: Tensor, recipe: Recipe, seed: int, loss: Loss | None, compiled: bool
) -> None:
    order = torch.Generator().manual_seed(seed)
    rng = torch.Generator(x.device).manual_seed(seed)
    n, batches = len(x), math.ceil(len(x) / recipe.batch_size)
    steps = recipe.epochs * batches
    for p in module.parameters():
        p.requires_grad_(True)
    if recipe.frozen == "body":
        freeze_body(module)
    forward: Any = module
    optimizer, criterion = optimiser(module, recipe), loss or task.loss
    if recipe.frozen == "body" and not (recipe.augment or loss or recipe.dp_clip):
        x, forward = _features(module, x), module.head  # the same in every epoch, so computed once
    hooks, precision = None, autocast(x.device)
    if recipe.dp_clip is not None:
        from harness.cell.dp import privatise

        hooks, optimizer = privatise(module, optimizer, recipe, n, batches, seed)
        precision = nullcontext()  # what is clipped are gradients in float32
    elif compiled:
        forward = torch.compile(module)
    schedule = None
    if recipe.schedule == "one_cycle":
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=max(steps, 10))
    step = 0
    for _ in range(recipe.epochs):
        forward.train(recipe.frozen == "none")  # a frozen body keeps its batch-norm statistics too
        module.head.train()  # linear, so the same in both modes, but opacus looks at layers in train mode only
        total = torch.zeros((), device=x.device)
        for rows in torch.randperm(n, generator=order).to(x.device).tensor_split(batches):
            xb = task.augment(x[rows], rng) if recipe.augment else x[rows]
            batch = Batch(layout(xb), y[rows], rows, rng, progress=step / max(1, steps - 1))
            with precision:
                value = criterion(forward, batch).mean()
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if schedule:
                schedule.step()
            total += value.detach()
            step += 1
        if not torch.isfinite(total):
            raise Diverged(
                f"the training loss is not finite after {step} steps (lr={recipe.lr}, epochs={recipe.epochs})"
            )
    if hooks is not None:
        hooks.to_standard_module()
