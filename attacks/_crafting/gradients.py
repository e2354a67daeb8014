"""Gradient matching: perturb training images until learning them moves a network as the attacker's own rows would.

Networks are read in evaluation mode and float32. Images are floats in 0..255, perturbations and steps in grey levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, vmap

from tasks.net import Net
from tasks.samples import Samples

CHUNK = 256  # rows per forward pass
Augment = Callable[[Tensor, torch.Generator], Tensor]


def parameters(module: Net, layers: str) -> list[Tensor]:
    """The trainable parameters of the whole network ("all") or of its last layer ("head")."""
    part = module.head if layers == "head" else module
    return [p for p in part.parameters() if p.requires_grad]


def flat_gradient(loss: Tensor, params: Sequence[Tensor], graph: bool = False) -> Tensor:
    """(P,) gradient of a scalar; with graph=True it can be differentiated again."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, params, create_graph=graph)])


def mean_gradient(module: Net, x: Tensor, y: Tensor, params: Sequence[Tensor]) -> Tensor:
    """(P,) gradient of the mean cross-entropy of encoded rows x (N, ...) with classes y (N,)."""
    module.eval()
    parts = [
        flat_gradient(F.cross_entropy(module(xs), ys, reduction="sum"), params)
        for xs, ys in zip(x.split(CHUNK), y.split(CHUNK), strict=True)  # type: ignore[no-untyped-call]
    ]
    return torch.stack(parts).sum(0) / len(x)


def gradient_norms(module: Net, x: Tensor, y: Tensor) -> Tensor:
    """(N,) norm of the gradient of each row's own cross-entropy over all parameters."""
    module.eval()
    weights = {k: p.detach() for k, p in module.named_parameters()}
    buffers = dict(module.named_buffers())

    def loss(weights: dict[str, Tensor], row: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(module, (weights, buffers), (row[None],)), label[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0), chunk_size=CHUNK // 8)(weights, x, y)
    return torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()]).sum(0).sqrt()


def mismatch(gradient: Tensor, goal: Tensor) -> Tensor:
    """1 - cosine of two gradients (P,): 0 where they point the same way, 2 where they are opposed."""
    return 1 - F.cosine_similarity(gradient, goal, dim=0)


def project(delta: Tensor, images: Tensor, eps: float) -> Tensor:
    """The nearest perturbation within eps that keeps images + delta in 0..255."""
    return delta.clamp(-eps, eps).clamp(-images, 255 - images)


def with_grey_levels(rows: Samples, images: Tensor) -> Samples:
    """The rows with these images, rounded to whole grey levels."""
    return rows.with_inputs(images.detach().cpu().round().clamp(0, 255).to(torch.uint8))


def add_perturbation(rows: Samples, delta: Tensor) -> Samples:
    """The rows with delta (N, C, H, W) added, rounded to whole grey levels."""
    return with_grey_levels(rows, rows.inputs + delta.detach().cpu())  # type: ignore[operator]


def match_gradients(
    rows: Samples, x: Tensor, y: Tensor, surrogate: Callable[[int, Samples], Net], augment: Augment,
    *, eps: float, steps: int, step: float, retrain: int, layers: str, rng: torch.Generator, restarts: int = 1,
) -> Samples:  # fmt: skip
    """The rows, perturbed within eps so that their mean training gradient points where that of x (M, ...) with y does.

    surrogate(n, rows so far): the n-th network to match on, 0 to `retrain`; they take equal shares of the steps.
    Signed Adam: Adam fed with signs, a tenth of the step after 3/8, 5/8 and 7/8 of the way.
    Of several restarts, each from its own noise, the one whose mismatch was least in its last step is kept.
    """
    images, labels = rows.inputs.to(x.device).float(), rows.targets.to(x.device)  # type: ignore[union-attr]
    turns = [int(steps * at) for at in (0.375, 0.625, 0.875)]
    every = max(1, -(-steps // (retrain + 1)))

    def attempt() -> tuple[float, Tensor]:
        start = torch.randn(images.shape, generator=rng) * eps
        local = torch.Generator(x.device).manual_seed(int(torch.randint(2**62, (), generator=rng)))
        delta = project(start.to(x.device), images, eps).requires_grad_()
        optimizer = torch.optim.Adam([delta], lr=step)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, turns)
        reached = float("inf")
        for i in range(steps):
            if i % every == 0:
                module = surrogate(i // every, add_perturbation(rows, delta)).eval()
                params = parameters(module, layers)
                goal = mean_gradient(module, x, y, params)
            loss = F.cross_entropy(module(augment(images + delta, local)), labels)
            distance = mismatch(flat_gradient(loss, params, graph=True), goal)
            delta.grad = torch.autograd.grad(distance, [delta])[0].sign()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                delta.copy_(project(delta, images, eps))
            reached = float(distance.detach())
        return reached, delta

    _, best = min((attempt() for _ in range(restarts)), key=lambda pair: pair[0])
    return add_perturbation(rows, best)
