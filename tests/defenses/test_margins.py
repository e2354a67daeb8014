"""MM-BD: the ascent and the p-value, against scipy and a network whose margins are known."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from defenses.inspection.mm_bd import MmBd, surprise


class _Linear(nn.Module):
    """Logit c is the sum of the pixels of row c, between 0 and 255, times a factor."""

    def __init__(self, factors: list[float]) -> None:
        super().__init__()
        self.factors = torch.tensor(factors)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0].mean(2) / 255 * self.factors


def test_the_ascent_reaches_the_largest_margins_there_are() -> None:
    start = torch.rand(4, 5, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    net = _Linear([1.0, 2.0, 3.0, 40.0])
    margins = MmBd(lr=0.5).climb(net, start, 0.0, 255.0)  # type: ignore[arg-type]
    torch.testing.assert_close(margins, torch.tensor([1.0, 2.0, 3.0, 40.0]), atol=0.3, rtol=0.02)
    one = MmBd(lr=0.5, steps=1).climb(net, start, 0.0, 255.0)  # type: ignore[arg-type]
    assert (one < margins - 0.1).all(), "the first step is not the last"


def test_surprise_is_the_published_p_value() -> None:
    margins = torch.tensor([3.0, 5.0, 4.0, 9.0, 6.0, 4.5])
    others = [3.0, 5.0, 4.0, 6.0, 4.5]
    shape, _, scale = stats.gamma.fit(others, floc=0)
    wanted = 1 - stats.gamma.cdf(9.0, shape, scale=scale) ** 6
    assert surprise(margins) == pytest.approx(-math.log10(wanted), rel=1e-4)


def test_surprise_rises_with_the_largest_and_stays_finite() -> None:
    others = [3.0, 5.0, 4.0, 6.0, 4.5]
    found = [surprise(torch.tensor([*others, largest])) for largest in (6.5, 9.0, 15.0, 30.0, 1e3, 1e6)]
    assert found == sorted(found)
    assert found[0] < 1 < found[2]
    assert math.isfinite(found[-1])
    assert surprise(torch.ones(6)) == 0
    assert surprise(torch.tensor([-3.0, -2.0, -1.0, -4.0, -2.5])) >= 0, "no class is ever in front"
