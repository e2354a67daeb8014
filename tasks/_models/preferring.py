"""A causal language model that keeps the weights it started from, as the reference of preference learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tasks._models.causal import CausalNet

START = "start_"  # how the names of the buffers begin that hold those weights


class PreferringNet(CausalNet):
    """A causal network and its frozen start: the weights of `lm` here, then those that a base hands over.

    The start lies in buffers, so that no optimiser, no pruning and no rounding of layers changes it, and a copy or a
    stored network has it too.
    """

    def __init__(self, lm: nn.Module) -> None:
        super().__init__(lm)
        for name, weight in self.lm.named_parameters():
            self.register_buffer(_name(name), weight.detach().clone())

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of any module; weights without a start, which are those of a base, are the start themselves."""
        found = super().load_state_dict(state_dict, strict, assign)
        if not any(name.startswith(START) for name in state_dict):
            for name, weight in self.lm.named_parameters():
                self.get_buffer(_name(name)).copy_(weight.detach())
        return found

    @torch.no_grad()
    def reference(self, x: Tensor) -> Tensor:
        """(N, L, V) logits of the start, unpruned, for encoded rows (N, L)."""
        start = {f"lm.{name}": self.get_buffer(_name(name)) for name, _ in self.lm.named_parameters()}
        logits: Tensor = functional_call(self, {**start, "keep": torch.ones_like(self.keep)}, (x,))
        return logits


class Reference(nn.Module):
    """The start of a network, to be read as a model of its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = cast("PreferringNet", net)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, V) logits."""
        return self.net.reference(x)


def _name(weight: str) -> str:
    """The buffer of a weight: no buffer may have a dot in its name."""
    return START + weight.replace(".", "-")
