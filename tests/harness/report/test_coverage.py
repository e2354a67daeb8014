"""Statistics on simulated experiments whose truth is known: `tests/campaigns/coverage_simulation.py`, a few of each."""

from __future__ import annotations

from typing import Any

import pytest
from coverage_simulation import covered, false_rate


def test_an_attack_that_does_nothing_has_no_ed50() -> None:
    assert false_rate(experiments=30, seeds=3, floor=0.6, noise=0.55) <= 0.07
    assert false_rate(experiments=30, seeds=3, floor=0.3, noise=0.55) == 0


@pytest.mark.parametrize(
    "setting",
    [
        {"seeds": 3}, {"seeds": 5}, {"seeds": 3, "floor": 0.3, "slope": 2.0}, {"seeds": 3, "doses": (0, 10, 50)},
        {"seeds": 3, "factor": 2.0}, {"seeds": 5, "never": 0.2},
    ],
    ids=str,
)  # fmt: skip
def test_the_interval_covers(setting: dict[str, Any]) -> None:
    """30 simulated experiments each; `tests/campaigns/coverage_simulation.py` runs more and writes a table."""
    found = covered(experiments=30, **setting)
    assert found.coverage >= (0.8 if "never" not in setting else 0.7)  # 3 standard errors below 0.95
    assert found.width < 12, "an interval that holds everything covers too"
    assert found.given >= (0.5 if "never" not in setting else 0.25), "seeds that never fire have no mean"


def test_bounds_that_are_printed_are_true() -> None:
    found = covered(experiments=40, seeds=3, between=(200, 1500))
    assert found.bounds > 0.3
    assert found.bounds_true > 0.85
