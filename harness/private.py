"""DP-SGD inside the training loop, by opacus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from tasks.base import BadInput, Recipe
from tasks.models.net import Net

if TYPE_CHECKING:
    from opacus.optimizers import DPOptimizer


def _opacus():  # type: ignore[no-untyped-def]
    try:
        import opacus
    except ImportError:
        raise BadInput('dp_clip needs the package opacus: pip install "tinydrop[dp]"') from None
    return opacus


def without_batch_norm(module: nn.Module) -> nn.Module:
    """Batch norm mixes rows, so per-sample gradients need group norm in its place."""
    _opacus()
    from opacus.validators import ModuleValidator

    return ModuleValidator.fix(module)


def privatise(
    module: Net, optimizer: torch.optim.Optimizer, recipe: Recipe, n: int, batches: int, seed: int
) -> tuple[nn.Module, DPOptimizer]:
    """Per-sample clipping to dp_clip and Gaussian noise of dp_noise * dp_clip (Abadi et al. 2016, arXiv 1607.00133)."""
    _opacus()
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    device = next(module.parameters()).device
    return GradSampleModule(module), DPOptimizer(
        optimizer,
        noise_multiplier=recipe.dp_noise,
        max_grad_norm=recipe.dp_clip,
        expected_batch_size=n // batches,
        generator=torch.Generator(device).manual_seed(seed),
    )
