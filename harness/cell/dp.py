"""DP-SGD inside the training loop, by opacus."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.keys.seeds import derive
from tasks.base import Recipe
from tasks.net import Net
from tasks.plugin import BadInput, NotApplicable

if TYPE_CHECKING:
    from opacus.optimizers import DPOptimizer


def _require_opacus() -> None:
    try:
        import opacus  # noqa: F401
    except ImportError:
        raise BadInput('dp_clip needs the package opacus: pip install "tinydrop[dp]"') from None


def without_batch_norm(module: Any) -> Any:
    """Batch norm mixes rows, so per-sample gradients need group norm in its place; learned scale and shift are kept.

    16 channels to a group (Wu and He 2018, arXiv 1803.08494, table 3): with opacus' 32 groups, every channel of a
    small CNN would be normalised by itself. Raises NotApplicable for layers that opacus has no per-sample gradient of.
    """
    _require_opacus()
    from opacus.validators import ModuleValidator

    module = _with_group_norm(module)
    errors = ModuleValidator.validate(module.train())
    if errors:
        raise NotApplicable(f"dp_clip: {str(errors[0]).splitlines()[0]}")
    return module


def _with_group_norm(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        c = module.num_features
        norm = nn.GroupNorm(math.gcd(c, max(1, c // 16)), c, eps=module.eps, affine=module.affine)
        if module.affine:
            norm.load_state_dict({"weight": module.weight, "bias": module.bias})
        return norm
    for name, child in module.named_children():
        setattr(module, name, _with_group_norm(child))
    return module


@contextmanager
def privatise(
    module: Net, optimizer: torch.optim.Optimizer, recipe: Recipe, n: int, batches: int, seed: int
) -> Iterator[DPOptimizer]:
    """Per-sample clipping to dp_clip and Gaussian noise of dp_noise * dp_clip (Abadi et al. 2016, arXiv 1607.00133).

    Inside the block, step with the optimizer that it gives, in float32, and call the module once per step. The hooks
    that record per-sample gradients sit on the module itself, so whatever a loss calls of it counts; the end of the
    block takes them off.
    """
    _require_opacus()
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    class Contiguous(GradSampleModule):  # type: ignore[misc]
        def capture_activations_hook(self, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
            # opacus unfolds a convolution's input by strides it does not look at: channels_last gives wrong gradients
            super().capture_activations_hook(layer, [t.contiguous() for t in inputs], output)

    # The first layer's input needs no gradient; that its hook then sees the output's gradient alone is all it needs.
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    module.to(memory_format=torch.contiguous_format)  # as per-sample gradients are
    device = next(module.parameters()).device
    hooks = Contiguous(module)
    yield DPOptimizer(
        optimizer,
        noise_multiplier=recipe.dp_noise,
        max_grad_norm=recipe.dp_clip,
        expected_batch_size=n / batches,
        generator=torch.Generator(device).manual_seed(derive(seed, "dp_noise")),
    )
    hooks.to_standard_module()
