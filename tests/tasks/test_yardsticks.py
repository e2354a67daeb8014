"""No victim is weaker than a simple model of scikit-learn on the same rows by more than chance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import needs_data
from yardsticks import YARDSTICKS, Comparison, compare, standard_error

from harness.plugins.registry import create

EMBEDDED = [("digits", {}), ("synthetic_tones", {}), ("synthetic_reviews", {})]
REAL = [
    ("sst2", {"train_size": 4000}),
    ("sms_spam", {"train_size": 2000}),
    ("vehicle_claim_fraud", {"victim": "trees"}),
]
LONG = [
    ("sst2", {"train_size": 16000}),
    ("ag_news", {"train_size": 4000, "test_size": 2000}),
    ("imdb", {"train_size": 3000, "test_size": 1000}),
    ("fsdd", {"train_size": 600}),
    ("fashion_mnist", {"train_size": 2000, "test_size": 1000}),
]


def assert_not_behind(name: str, options: dict[str, Any]) -> None:
    found = compare(create("tasks", name, options))  # type: ignore[arg-type]
    assert not found.behind, f"{name}: {found} ({YARDSTICKS[create('tasks', name).modality].name})"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "options"), EMBEDDED)
def test_embedded_tasks(name: str, options: dict[str, Any]) -> None:
    assert_not_behind(name, options)


@needs_data
@pytest.mark.parametrize(("name", "options"), [*REAL, *(pytest.param(*case, marks=pytest.mark.slow) for case in LONG)])
def test_real_data(name: str, options: dict[str, Any]) -> None:
    assert_not_behind(name, options)


@needs_data
@pytest.mark.xfail(strict=True, reason="linear victims of tables are for theory: 0.66 where trees reach 0.73")
def test_the_linear_victim_of_a_table_is_behind_trees() -> None:
    assert_not_behind("vehicle_claim_fraud", {})


def test_a_victim_that_hardly_trains_is_behind() -> None:
    assert compare(create("tasks", "digits", {"epochs": 1, "lr": 1e-5})).behind  # type: ignore[arg-type]


def test_a_lead_is_weighed_by_its_error() -> None:
    assert not Comparison(yardstick=0.80, victim=0.79, error=0.01).behind
    assert Comparison(yardstick=0.80, victim=0.77, error=0.01).behind


def test_the_error_of_a_mean_over_classes() -> None:
    lead = torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0, 0.0], dtype=torch.double)
    one, two = torch.zeros(6), torch.tensor([0, 0, 0, 0, 1, 1])
    assert standard_error(lead, one) == pytest.approx((4 / 6 / 6) ** 0.5)
    assert standard_error(lead, two) == pytest.approx((1 / 4) ** 0.5 / 2)
