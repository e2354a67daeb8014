"""Feature collision: images moved until their features are those of the target.

Networks are read in evaluation mode and float32. Images are floats in 0..255, perturbations and steps in grey levels.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from attacks._crafting.gradients import project
from tasks.net import Net
from tasks.samples import Samples


def to_float(samples: Samples, device: torch.device) -> Tensor:
    """(N, C, H, W) pixels that gradients can reach."""
    return samples.inputs.to(device).float()  # type: ignore[union-attr]


@torch.no_grad()
def read_features(module: Net, images: Tensor) -> Tensor:
    """(N, D) what the head sees of images."""
    return module.eval().features(images)


def collide(module: Net, bases: Tensor, goal: Tensor, *, beta: float, steps: int) -> Tensor:
    """(N, C, H, W) images near their bases (N, C, H, W), each on its own with features near the goal (1, D).

    Forward-backward splitting on ||f(x) - goal||^2 + beta / 2 ||x - base||^2: a gradient step on the first term, the
    proximal step of the second, pixels clipped. A step that does not lower a row's objective is taken back and halved,
    one that does makes the next longer by a fifth, so that the first may be far too long.
    """
    module.eval()
    one_each = (-1, *[1] * (bases.ndim - 1))

    def judge(x: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) objective and the gradient of its first term."""
        x = x.detach().requires_grad_()
        distance = (module.features(x) - goal).square().sum(1)
        (slope,) = torch.autograd.grad(distance.sum(), [x])
        return distance.detach() + beta / 2 * (x.detach() - bases).square().flatten(1).sum(1), slope

    x = bases
    best, slope = judge(x)
    step = torch.full_like(best, 1e5)
    for _ in range(steps):
        t = step.view(one_each)
        tried = ((x - t * slope + t * beta * bases) / (1 + t * beta)).clamp(0, 255)
        value, slope_there = judge(tried)
        lower = value < best
        step = step * torch.where(lower, 1.2, 0.5)
        best, taken = torch.where(lower, value, best), lower.view(one_each)
        x, slope = torch.where(taken, tried, x), torch.where(taken, slope_there, slope)
    return x


def surround(module: Net, bases: Tensor, goal: Tensor, *, eps: float, steps: int, step: float) -> Tensor:
    """(N, C, H, W) images within eps of their bases (N, C, H, W), the mean of whose features is near the goal (1, D).

    Adam on ||mean f(x) - goal||^2 / ||goal||^2.
    """
    module.eval()
    delta = torch.zeros_like(bases).requires_grad_()
    optimizer = torch.optim.Adam([delta], lr=step)
    for _ in range(steps):
        distance = (module.features(bases + delta).mean(0, keepdim=True) - goal).square().sum() / goal.square().sum()
        (delta.grad,) = torch.autograd.grad(distance, [delta])
        optimizer.step()
        with torch.no_grad():
            delta.copy_(project(delta, bases, eps))
    return bases + delta.detach()


def imitate(module: Net, bases: Tensor, goals: Tensor, *, eps: float, steps: int, step: float) -> Tensor:
    """(N, C, H, W) images within eps of their bases (N, C, H, W), each with features near one of the goals (N, D).

    Adam on the sum of squared distances of pairs, which are made anew in every step: those of the least sum.
    """
    module.eval()
    delta = torch.zeros_like(bases).requires_grad_()
    optimizer = torch.optim.Adam([delta], lr=step)
    for _ in range(steps):
        features = module.features(bases + delta)
        distances = torch.cdist(features.detach(), goals).square()
        rows, partners = (torch.from_numpy(at) for at in linear_sum_assignment(distances.cpu().numpy()))
        distance = (features[rows] - goals[partners]).square().sum()
        (delta.grad,) = torch.autograd.grad(distance, [delta])
        optimizer.step()
        with torch.no_grad():
            delta.copy_(project(delta, bases, eps))
    return bases + delta.detach()
