"""Hostile answers and reports: graded to numbers that mean something, or refused in one line that names the defense.

TINYDROP_FUZZ=20000 tries that many of each (the default is a hundred).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from draws import LEAVES, TREES, many
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from defenses.controls.random_filter import RandomFilter
from harness.cell import metrics
from harness.cell.answers import ask
from harness.cell.case import CellCase, Fitter
from harness.errors import BrokenDefense
from harness.plugins.registry import create
from harness.store.folder import Store
from tasks.base import Task
from tasks.plugin import BadInput
from tasks.samples import Challenge, Outputs, Samples

ROWS = 12
NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e30, -1e30, 1e39, float("nan"), float("inf"), -float("inf")])
DTYPES = st.sampled_from([torch.float32] * 6 + [torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64])


@st.composite
def tensors(draw: st.DrawFn, *shapes: tuple[int, ...], dtypes: st.SearchStrategy[torch.dtype] = DTYPES) -> Tensor:
    """A tensor of one of these shapes, three times out of four the first, with a few numbers in random places."""
    shape = draw(st.sampled_from([shapes[0]] * 3 * len(shapes) + [*shapes[1:]]))
    seed, at = draw(st.integers(0, 9)), draw(st.dictionaries(st.integers(0, 500), NUMBERS, max_size=3))
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).double()
    for place, number in at.items():
        if values.numel():
            values.view(-1)[place % values.numel()] = number
    dtype = draw(dtypes)
    return values.nan_to_num(0).clamp(-9, 9).to(dtype) if dtype in (torch.int64, torch.bool) else values.to(dtype)


def rows_of(*dtypes: torch.dtype) -> st.SearchStrategy[Any]:
    """(ROWS,) of one of these types, most often; now and then something else."""
    usual = st.sampled_from([*dtypes] * 8 + [torch.float32, torch.float64, torch.int64, torch.bool])
    return tensors((ROWS,), (1,), (ROWS + 1,), (ROWS, 1), (), dtypes=usual) | LEAVES


OUTPUTS = st.builds(
    Outputs,
    scores=tensors((ROWS, 10), (1, 10), (ROWS, 9), (ROWS, 11), (ROWS, 1), (ROWS,), (ROWS, 1, 10), (0, 10)),
    abstained=tensors((ROWS,), dtypes=st.just(torch.bool)) | rows_of(torch.bool),
    suspicion=st.none() | rows_of(torch.float32),
    radius=st.none() | rows_of(torch.int64),
)  # fmt: skip


class Answers:
    def __init__(self, outputs: Any) -> None:
        self.outputs = outputs

    def predict(self, samples: Samples) -> Any:
        return self.outputs


@pytest.fixture(scope="module")
def folder() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as path:
        yield Store(Path(path))


@pytest.fixture(scope="module")
def digits() -> Task:
    task = create("tasks", "digits", {"train_size": 40, "test_size": 40, "reserve_size": 20})
    assert isinstance(task, Task)
    return task


def means_something(found: dict[str, metrics.Metric]) -> bool:
    """Whether every metric is a share; a certificate is a number of rows."""
    return all(0 <= m.value <= (9 if name == "certified_radius_median" else 1) for name, m in found.items())


@many
@given(OUTPUTS | TREES)
def test_what_a_model_answers(digits: Task, outputs: Any) -> None:
    samples = digits.load().test.select(range(ROWS))
    challenge = Challenge(samples, (samples.targets + 1) % 10, samples.targets)
    said = ""
    try:
        found = ask(digits, Answers(outputs), samples, "twelve inputs", RandomFilter())
    except BrokenDefense as error:
        said = str(error)
    if said:
        assert said.startswith("random_filter")
        assert "\n" not in said
        return
    grades = metrics.grade_clean(digits, found, samples) | metrics.grade_attack(digits, found, challenge)
    assert means_something(grades | metrics.grade_inputs(found, found))


@many
@given(
    st.fixed_dictionaries(
        {}, optional={
            "train": rows_of(torch.float32), "flagged": rows_of(torch.bool),
            "model": NUMBERS | LEAVES | tensors((), (1,), (3,)), "target": st.integers(-2, 12) | NUMBERS | LEAVES,
        },
    )
)  # fmt: skip
def test_what_a_defense_reports(folder: Store, digits: Task, report: dict[str, Any]) -> None:
    train = digits.load().train.select(range(ROWS))
    case = CellCase(train, train, Fitter(digits, folder, torch.device("cpu"), 0, who="me"), torch.Generator())
    said = "me: report("
    try:
        case.report(**report)
    except BadInput as error:
        said = str(error)
    assert said.startswith("me: report(")
    assert "\n" not in said
    found = case.findings
    assert found.model is None or abs(found.model) < float("inf")
    assert found.target is None or found.target in range(10)
    assert means_something(metrics.grade_detection(found.train, found.flagged, torch.arange(ROWS) < 3))
