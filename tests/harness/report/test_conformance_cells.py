"""The cheapest methods of each kind and modality still do what results/conformance says of them, on the same cells."""

from __future__ import annotations

import os
from typing import Any

import pandas as pd
import pytest

from harness.plugins.registry import VERDICTS, Spec, create, entry
from harness.report.conformance import CONTROL, MARGIN
from harness.store.folder import Store
from harness.testing.checks import CPU

SECONDS = 15.0  # of a cell, as it was measured


def cheapest() -> list[dict[str, Any]]:
    """Of every kind and modality the cheapest method that works, where its cells take few seconds and no base."""
    frame = pd.read_csv(VERDICTS)
    frame = frame[(frame.verdict == "works") & (frame.seconds <= SECONDS)]
    tasks: list[Any] = [create("tasks", label.partition("(")[0]) for label in frame.task]
    frame = frame[[task.source() is None for task in tasks]]
    frame = frame.assign(modality=[entry("tasks", label.partition("(")[0]).modalities[0] for label in frame.task])
    return frame.sort_values("seconds").drop_duplicates(["kind", "modality"]).to_dict("records")


@pytest.mark.parametrize("row", cheapest(), ids=lambda row: f"{row['kind']}-{row['method']}")
def test_a_method_that_works_still_does(row: dict[str, Any], store: Store) -> None:
    from harness.cell.steps import run_steps

    if not os.environ.get("TINYDROP_DATA"):
        pytest.skip("needs real data: set TINYDROP_DATA to the folder that holds it")
    name, options = read_label(row["task"])
    task: Any = create("tasks", name, options)

    def asr(attack: str, defense: str) -> tuple[float, float]:
        plugins: Any = create("attacks", *read_label(attack)), create("defenses", defense)
        found = run_steps(task, plugins[0], row["dose"], plugins[1], 0, store, CPU).metrics
        return found["asr"].value, found["asr_floor"].value

    if row["kind"] == "attacks":
        reached, floor = asr(row["attack"] if isinstance(row["attack"], str) else row["method"], "none")
        flips = [asr(f"{CONTROL}(aim=class)", "none")[0]] if task.referee() is None else []
        assert reached - max([floor, *flips]) > MARGIN["attacks"] / 2
    else:
        assert asr(row["attack"], "none")[0] - asr(row["attack"], row["method"])[0] > MARGIN["defenses"] / 2


def read_label(label: str) -> tuple[str, dict[str, Any]]:
    """Name and options of a label, such as fsdd(train_size=600)."""
    import yaml

    name, _, rest = label.rstrip(")").partition("(")
    options = {key: yaml.safe_load(value) for key, value in (part.split("=") for part in rest.split(", ") if part)}
    assert Spec(name, tuple(sorted(options.items()))).label == label
    return name, options
