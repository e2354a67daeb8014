"""Beatrix: the Gram matrices of several orders, their bounds, and what is outside of them."""

from __future__ import annotations

import torch

from defenses.screening.beatrix import deviation, gram_of


def test_entries_are_the_published_matrices_of_every_order() -> None:
    maps = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    found = gram_of(maps, 3).view(3, 3, 10)
    rows, columns = torch.triu_indices(4, 4)
    torch.testing.assert_close(found[:, 0], torch.einsum("ncs,nds->ncd", maps, maps)[:, rows, columns])
    third = torch.einsum("ncs,nds->ncd", maps**3, maps**3)[:, rows, columns]
    torch.testing.assert_close(found[:, 2] ** 3, third, atol=1e-4, rtol=1e-4)
    assert (third < 0).any(), "odd orders keep their sign"


def test_only_what_is_outside_of_the_bounds_counts_in_units_of_the_bound() -> None:
    low, high = torch.tensor([[1.0, -4.0]]), torch.tensor([[2.0, 8.0]])
    entries = torch.tensor([[1.5, 0.0], [0.5, 12.0], [3.0, -6.0]])
    found = deviation(entries, low.expand(3, 2), high.expand(3, 2))
    torch.testing.assert_close(found, torch.tensor([0.0, (0.5 + 0.5) / 2, (0.5 + 0.5) / 2]))
