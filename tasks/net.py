"""The interface of every victim network to defenses: embed, stages, head."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """A classifier cut where defenses need to cut it: head(body(embed(x))).

    `embed` maps encoded inputs to a float tensor that can be perturbed, mixed or optimised (pixels, log-mel frames,
    token embeddings); `body` runs `stages` (whose outputs are the attention maps that distillation compares), pools
    to (N, D) and multiplies by `keep` (D,), ones unless a defense prunes features; `head` is linear, (N, D) -> (N, K).
    """

    stages: nn.ModuleList
    head: nn.Linear
    keep: Tensor
    masked: ClassVar[bool] = False  # whether the last channel of what the stages pass on is the mask of a sequence
    grows: ClassVar[bool] = False  # whether `grow` makes the network from data, such as trees, before any step

    def memory_format(self, device: torch.device) -> torch.memory_format:
        """The layout of pictures and of weights in which the network is fastest."""
        return torch.channels_last

    def attach_head(self, features: int, classes: int) -> None:
        """Adds the head, D features to K classes; every constructor calls this last."""
        self.register_buffer("keep", torch.ones(features))
        self.head = nn.Linear(features, classes)

    def grow(self, x: Tensor, y: Tensor) -> None:
        """Make the network from encoded rows and their classes (N,), where steps of gradient descent cannot."""
        raise NotImplementedError(f"{type(self).__name__} must define grow()")

    def embed(self, x: Tensor) -> Tensor:
        """Encoded inputs as a float tensor that gradients can reach."""
        raise NotImplementedError(f"{type(self).__name__} must define embed()")

    def pool(self, h: Tensor) -> Tensor:
        """(N, D) features of the last stage's output."""
        raise NotImplementedError(f"{type(self).__name__} must define pool()")

    def body(self, e: Tensor) -> Tensor:
        """(N, D) features of an embedded batch."""
        for stage in self.stages:
            e = stage(e)
        return self.pool(e) * self.keep

    def features(self, x: Tensor) -> Tensor:
        """(N, D) features of an encoded batch."""
        return self.body(self.embed(x))

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits."""
        logits: Tensor = self.head(self.features(x))
        return logits
