"""Who delivered which row: real sources where the data has them, or rows dealt out at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tasks.plugin import BadInput
from tasks.samples import Samples

CONCENTRATION = 5.0  # of the Dirichlet distribution, per class: sources differ in size and in what they deliver


def number_sources(names: Sequence[object]) -> Tensor:
    """(N,) a number for each different name, in the order of the names as texts."""
    texts = [str(name) for name in names]
    numbers = {text: i for i, text in enumerate(sorted(set(texts)))}
    return torch.tensor([numbers[text] for text in texts], dtype=torch.int64)


def deal_sources(targets: Tensor, count: int, seed: int) -> Tensor:
    """(N,) one of `count` sources for each row: shares drawn for every class from a Dirichlet distribution.

    So sources differ in size and in classes, as those of federated data do (Hsu, Qi and Brown, 2019, arXiv 1909.06335).
    A source may get no row.
    """
    rng = np.random.default_rng(seed)
    sources = np.zeros(len(targets), dtype=np.int64)
    for c in sorted(set(targets.tolist())):
        rows = (targets == c).nonzero().flatten().numpy()
        sources[rows] = rng.choice(count, size=len(rows), p=rng.dirichlet([CONCENTRATION] * count))
    return torch.from_numpy(sources)


def list_sources(sources: Tensor) -> list[int]:
    """The sources (N,) that delivered any row, ascending."""
    return sorted(set(sources.tolist()))


def held_sources(train: Samples, count: int, rng: torch.Generator) -> Tensor:
    """(count,) the sources that an attacker holds, drawn at random; more of them contain fewer.

    Raises BadInput where the attacker would hold all.
    """
    assert train.sources is not None
    known = torch.tensor(list_sources(train.sources))
    if count >= len(known):
        raise BadInput(f"attacker_sources={count}: the training set has {len(known)} sources; one must be honest")
    return known[torch.randperm(len(known), generator=rng)[:count]]
