"""Published tasks keep their rows: results are compared by them. published_rows.json was written before the split rule.

`python tests/tasks/test_published_rows.py` checks every task and prints those that differ, cifar10 too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import cast

import pytest
from helpers import needs_data

from harness.plugins.registry import create, load_class
from tasks.base import Task
from tasks.caches import forget
from tasks.samples import Samples

ROWS: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("published_rows.json").read_text())
SLOW = (  # seconds each to decode, ten of cifar10; the others are read in the same ways
    "ag_news", "cifar10", "cifar10_generator", "cifar10_transfer", "fashion_mnist", "fashion_mnist_generator",
    "fsdd_synthesiser", "mnist",
)  # fmt: skip


def fingerprint(samples: Samples) -> str:
    """Of inputs and targets, and of ids."""
    ids = hashlib.sha256(samples.ids.numpy().tobytes()).hexdigest()
    return f"{samples.fingerprint[:16]} {ids[:16]}"


def rows_of(name: str) -> dict[str, str]:
    splits = cast(Task, create("tasks", name)).load()
    return {part: fingerprint(getattr(splits, part)) for part in ("train", "test", "reserve")}


def is_embedded(name: str) -> bool:
    return cast("type[Task]", load_class("tasks", name)).dataset == "embedded"


@pytest.mark.parametrize("name", [name for name in ROWS if is_embedded(name)])
def test_embedded_tasks_keep_their_rows(name: str) -> None:
    assert rows_of(name) == ROWS[name]


@needs_data
@pytest.mark.parametrize("name", [name for name in ROWS if not is_embedded(name) and name not in SLOW])
def test_tasks_of_real_data_keep_their_rows(name: str) -> None:
    assert rows_of(name) == ROWS[name]


if __name__ == "__main__":
    for each in ROWS:
        if rows_of(each) != ROWS[each]:
            print(f"{each}: other rows")
        forget()
