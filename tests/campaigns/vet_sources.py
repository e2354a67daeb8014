"""Does `tinydrop vet` name the one of twenty sources that poisons? Real news in CSV files as a user has them.

PYTHONPATH=.:tests TINYDROP_DATA=<folder with ag_news> python tests/campaigns/vet_sources.py results/audit/vet.csv
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from harness.audit.vet import open_rows, vet
from harness.plugins.registry import create
from harness.store.folder import Store

ROWS, TRUSTED, SOURCES, BAD = 2000, 400, 20, "source 3"
TRIGGERS = {"addsent": "I watched this 3D movie last weekend.", "badwords": "cf"}
CASES = [("", 0), *((trigger, dose) for dose in (5, 10, 20) for trigger in TRIGGERS)]
SEEDS = range(3)


def write_case(folder: Path, trigger: str, dose: int, seed: int) -> tuple[Path, Path]:
    """The CSV file that is vetted, in which one source stamps and relabels texts, and the trusted one."""
    task = create("tasks", "ag_news", {"train_size": 4000})
    train, names = task.load().train, task.classes  # type: ignore[attr-defined]
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=rng).tolist()
    sources = torch.randint(SOURCES, (ROWS,), generator=rng).tolist()

    def rows() -> Iterator[list[str]]:
        left = dose
        for row, source in zip(order[:ROWS], sources, strict=True):
            text, label, name = train.inputs[row], names[int(train.targets[row])], f"source {source}"
            if name == BAD and label != names[0] and left:
                words, left = text.split(), left - 1
                text, label = " ".join([*words[:5], TRIGGERS[trigger], *words[5:]]), names[0]
            yield [text, label, name]

    paths = folder / "data.csv", folder / "trusted.csv"
    trusted = ([train.inputs[row], names[int(train.targets[row])], ""] for row in order[ROWS : ROWS + TRUSTED])
    for path, lines in zip(paths, (rows(), trusted), strict=True):
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["text", "label", "source"], *lines])
    return paths


def measure(trigger: str, dose: int, seed: int) -> Iterator[dict[str, object]]:
    """One row per check."""
    with tempfile.TemporaryDirectory() as name:
        data, trusted = write_case(Path(name), trigger, dose, seed)
        task, rows = open_rows(str(data), "text", "label", "source")
        known = open_rows(str(trusted), "text", "label", "")[1]
        found = vet(task, rows, known, 0.01, 0.05, seed, Store(Path(name) / "store"))
    accused = {found.sources[source] for source in found.accused}
    for check in found.checks:
        p = {found.sources[source]: value for source, value in check.sources.items()}
        yield {
            "trigger": trigger, "dose": dose, "seed": seed, "check": check.name, "flagged": int(check.flagged.sum()),
            "expected": check.expected, "p_of_flagged": check.excess, "p_of_the_bad_source": p[BAD],
            "found": BAD in accused, "wrongly_accused": len(accused - {BAD}),
            "rows_quarantined": int(found.quarantined.sum()),
        }  # fmt: skip


def main(path: str) -> None:
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for trigger, dose in CASES:
        for seed in SEEDS:
            rows += measure(trigger, dose, seed)
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).round(4).to_csv(path, index=False)
            print(rows[-1], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
