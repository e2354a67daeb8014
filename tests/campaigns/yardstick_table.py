"""Is any victim weaker than a simple model of scikit-learn? Trains both on the same rows and writes a table.

PYTHONPATH=.:tests TINYDROP_DATA=<folder> python tests/campaigns/yardstick_table.py results/yardsticks [<task> ...]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from yardsticks import YARDSTICKS, compare

from harness.plugins.registry import create

SEEDS = range(3)
CASES = (
    ("vehicle_claim_fraud", {}),
    ("vehicle_claim_fraud", {"victim": "trees"}),
    ("sms_spam", {"train_size": 2000}),
    ("sst2", {"train_size": 4000}),
    ("ag_news", {"train_size": 4000}),
    ("digits", {}),
    ("synthetic_tones", {}),
    ("synthetic_reviews", {}),
    ("fsdd", {"train_size": 600}),
    ("fashion_mnist", {"train_size": 2000, "test_size": 2000}),
    ("sst2", {"train_size": 16000}),
    ("cifar10", {"train_size": 2000, "test_size": 2000}),
    ("ag_news", {}),
    ("imdb", {}),
)


def measure(name: str, options: dict[str, Any]) -> dict[str, object]:
    """One row of the table: means over seeds of a task with these options."""
    task, start = create("tasks", name, options), time.process_time()
    found = [compare(task, seed) for seed in SEEDS]  # type: ignore[arg-type]
    mean = pd.DataFrame([{"yardstick": f.yardstick, "victim": f.victim, "error": f.error} for f in found]).mean()
    return {
        "task": name,
        "victim_kind": getattr(task, "victim", "cnn"),
        "rows": len(task.load().train),  # type: ignore[attr-defined]
        "metric": task.clean_metric,  # type: ignore[attr-defined]
        "model": YARDSTICKS[task.modality].name,  # type: ignore[attr-defined]
        **mean.round(4).to_dict(),
        "behind": sum(f.behind for f in found),
        "cpu_seconds": round((time.process_time() - start) / len(SEEDS), 1),
    }


def main(folder: str, *names: str) -> None:
    """Write yardsticks.csv after every row, so that a run that is cut short keeps what it has."""
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, options in CASES:
        if not names or name in names:
            rows.append(measure(name, options))
            print(rows[-1], flush=True)
            pd.DataFrame(rows).to_csv(Path(folder) / "yardsticks.csv", index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
