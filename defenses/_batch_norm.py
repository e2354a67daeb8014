"""Batch-norm layers of a victim's network, for the defenses that read or change their scales."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from torch import nn

from tasks.deployed import Victim
from tasks.net import Net
from tasks.plugin import NotApplicable


def find_batch_norms(victim: Victim) -> list[tuple[str, nn.BatchNorm2d]]:
    """Names and layers in the order of the network's definition. Raises NotApplicable where there is none."""
    found = [(name, layer) for name, layer in victim.module.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    if not found:
        raise NotApplicable(f"the network of {victim.task.name} has no batch norm, whose scales are what is changed")
    return found


def use_batch_statistics(victim: Victim) -> Net:
    """The victim's network as in evaluation, without dropout, but that batch norms normalise by batch and move on."""
    net = victim.module.eval()
    for _, norm in find_batch_norms(victim):
        norm.train()
    return net


def find_convolutions(victim: Victim) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Every convolution whose output channels a batch norm scales, with that layer.

    Raises NotApplicable where there is no batch norm.
    """
    find_batch_norms(victim)
    layers = [m for m in victim.module.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    for before, after in pairwise(layers):
        if not isinstance(before, nn.Conv2d) or not isinstance(after, nn.BatchNorm2d):
            continue
        if before.out_channels == after.num_features:
            yield before, after
