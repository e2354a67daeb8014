"""CUDA graphs: all kernels of a pass are launched at once, since a small network waits for launches more than for them.

Nothing is compiled, so this pays from the first seconds of a training, which `torch.compile` does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from tasks.net import Net


class Caller(nn.Module):
    """Calls a network. Its own forward is what capturing replaces, so the network stays as it is."""

    def __init__(self, module: Net) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.module(x)
        return logits


class Graphed:
    """A network in training, (N, ...) -> (N, K), through a CUDA graph of its forward and one of its backward pass.

    Both are captured at the first batch of each shape. The batches of an epoch have two sizes at most, so there are at
    most two pairs. A captured pass is replayed as it was: it must not depend on values of the batch, nor wait for them.
    """

    def __init__(self, module: Net) -> None:
        self.module = module
        self.passes: dict[torch.Size, Callable[[Tensor], Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape not in self.passes:
            self.passes[x.shape] = capture(self.module, x)
        return self.passes[x.shape](x)

    def train(self, mode: bool = True) -> None:
        self.module.train(mode)


def capture(module: Net, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The network's forward pass on batches of the shape of x, graphed in bfloat16; weights and statistics stay."""
    before = [buffer.clone() for buffer in module.buffers()]
    with torch.autocast(x.device.type, dtype=torch.bfloat16, cache_enabled=False):
        graphed = cast("Caller", torch.cuda.make_graphed_callables(Caller(module), (x.clone(),)))
    for buffer, old in zip(module.buffers(), before, strict=True):
        buffer.copy_(old)  # warming up has counted the batch in the statistics of batch norm
    return graphed
