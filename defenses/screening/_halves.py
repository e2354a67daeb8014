"""Clean rows in two halves: one to learn what is usual from, one to set a threshold on."""

from __future__ import annotations

import torch

from tasks.samples import Samples


def split_in_half(clean: Samples, rng: torch.Generator) -> tuple[Samples, Samples]:
    """Both halves, drawn at random; of an odd number the second has one row more."""
    order = torch.randperm(len(clean), generator=rng)
    return clean.select(order[: len(clean) // 2]), clean.select(order[len(clean) // 2 :])
