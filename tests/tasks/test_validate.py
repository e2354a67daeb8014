"""What a task reads is checked at every load: the split and the first row that is wrong are named in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from helpers import tiny
from torch import Tensor

from harness.testing.checks import Broken, check_task
from tasks.base import Task
from tasks.data import make_samples
from tasks.image import ImageTask
from tasks.plugin import BadInput, options
from tasks.samples import Samples
from tasks.validate import check_split, describe, find_flaw

NAN = float("nan")


@options
class Read(ImageTask):
    """Forty dark or bright pictures, and one mistake."""

    dataset: ClassVar[str] = "embedded"
    licence: ClassVar[str] = "none"
    classes: ClassVar[tuple[str, ...]] = ("dark", "bright")
    channels: ClassVar[int] = 1

    how: str = ""

    def read(self) -> tuple[Samples, Samples]:
        targets = torch.arange(60) % 2
        noise = torch.randint(100, (60, 1, 8, 8), generator=torch.Generator().manual_seed(0))
        rows = make_samples((noise + 100 * targets[:, None, None, None]).to(torch.uint8), targets)
        train, test = rows.select(range(40)), rows.select(range(40, 60))
        return MISTAKES.get(self.how, lambda train, test: (train, test))(train, test)  # type: ignore[no-any-return]


def at(row: int, value: int) -> Callable[[Tensor], Tensor]:
    return lambda targets: targets.index_fill(0, torch.tensor([row]), value)


def in_train(**fields: Callable[[Any], Any]) -> Callable[[Samples, Samples], Any]:
    return lambda train, test: (replace(train, **{k: f(getattr(train, k)) for k, f in fields.items()}), test)


MISTAKES: dict[str, Callable[[Samples, Samples], Any]] = {
    "nothing": lambda train, test: None,
    "list": lambda train, test: [train, test],
    "three": lambda train, test: (train, test, test),
    "tensors": lambda train, test: (train.inputs, train.targets),
    "empty test": lambda train, test: (train, test.select([])),
    "empty train": lambda train, test: (train.select([]), test),
    "class 2": lambda train, test: (train, replace(test, targets=at(3, 2)(test.targets))),
    "class -1": in_train(targets=at(5, -1)),
    "float targets": in_train(targets=lambda t: t.float()),
    "one-hot": in_train(targets=lambda t: torch.eye(2)[t]),
    "int32 targets": in_train(targets=lambda t: t.int()),
    "listed targets": in_train(targets=lambda t: t.tolist()),
    "fewer targets": in_train(targets=lambda t: t[1:]),
    "fewer inputs": in_train(inputs=lambda x: x[1:]),
    "fewer ids": in_train(ids=lambda i: i[1:]),
    "same ids": in_train(ids=lambda i: i * 0),
    "float ids": in_train(ids=lambda i: i.float()),
    "grey floats": in_train(inputs=lambda x: x / 255),
    "nan": in_train(inputs=lambda x: (x / 255).index_fill(0, torch.tensor([7]), NAN)),
    "flat": in_train(inputs=lambda x: x.flatten(1)),
    "array": in_train(inputs=lambda x: x.numpy()),
    "texts": in_train(inputs=lambda x: ["a"] * len(x)),
}


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("nothing", "read returned nothing; return two tasks.samples.Samples"),
        ("list", "read returned a list"),
        ("three", "read returned a tuple"),
        ("tensors", "read returned a tuple"),
        ("empty test", "has 20 training and 0 test rows"),
        ("empty train", "there are no training rows"),
        ("class 2", "read: a label of test is not in 0 to 1, as `classes` says: row 3 has 2"),
        ("class -1", "a label of train is not in 0 to 1, as `classes` says: row 5 has -1"),
        ("float targets", r"targets of train are float32 \(40,\) in \[0, 1\], expected int64 \(N,\)"),
        ("one-hot", r"targets of train are float32 \(40, 2\)"),
        ("int32 targets", "targets of train are int32"),
        ("listed targets", "targets of train are a list"),
        ("fewer targets", "train has 40 inputs, 39 targets and 40 ids"),
        ("fewer inputs", "train has 39 inputs, 40 targets and 40 ids"),
        ("fewer ids", "train has 40 inputs, 40 targets and 39 ids"),
        ("same ids", "train has ids that occur twice; every row of a split needs an id of its own"),
        ("float ids", "ids of train are float32"),
        ("grey floats", r"inputs of train are float32 \(40, 1, 8, 8\) in \[0, 0.78\]; a task for image has uint8"),
        ("nan", "inputs of train are NaN or infinite in 1 of 40 rows, the first is row 7"),
        ("flat", r"inputs of train are uint8 \(40, 64\)"),
        ("array", "train has 0 inputs, 40 targets"),
        ("texts", "inputs of train are a list; a task for image has uint8"),
    ],
)
def test_data_that_cannot_be_right_is_refused_at_load(how: str, complaint: str) -> None:
    task = Read(how=how, reserve_size=10)
    with pytest.raises(BadInput, match=rf"^test_validate[^\n]*{complaint}[^\n]*$"):
        task.load()
    with pytest.raises(Broken, match=complaint):
        check_task(task)


def test_sound_data_is_read_as_it_is() -> None:
    assert len(Read(reserve_size=10).load().train) == 30


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda x: x * 3,
            r"inputs of test are float32 .*; a task for audio has float32 \(N, T\) in \[-1",
        ),
        (lambda x: x * 32768, "a task for audio has"),
        (lambda x: x * float("inf"), "NaN or infinite in 40 of 40 rows"),
        (lambda x: x.double(), "inputs of test are float64"),
    ],
)
def test_sounds_lie_within_what_a_recording_holds(change: Callable[[Tensor], Tensor], complaint: str) -> None:
    task = tiny("synthetic_tones")
    test = task.load().test
    check_split(task, "test", test)
    assert isinstance(test.inputs, Tensor)
    with pytest.raises(BadInput, match=rf"^synthetic_tones\.read: .*{complaint}"):
        check_split(task, "test", test.with_inputs(change(test.inputs)))


@pytest.mark.parametrize("row", [None, 3, b"bytes", NAN])
def test_a_text_that_is_no_str_is_named(row: Any) -> None:
    task = tiny("synthetic_reviews")
    texts: list[Any] = ["good", row, "bad"]
    flaw = find_flaw(make_samples(texts, torch.zeros(3, dtype=torch.int64)), task, "train")
    assert flaw == f"inputs of train: row 1 is {describe(row)}, expected a str"


def test_every_embedded_task_and_surrogate_is_sound() -> None:
    for name in ("digits", "synthetic_tones", "synthetic_reviews", "synthetic_stories"):
        task: Task = tiny(name)
        for part in ("train", "reserve", "test"):
            assert find_flaw(getattr(task.load(), part), task, part) == ""


def test_things_in_words() -> None:
    assert describe(None) == "nothing"
    assert describe([1]) == "a list"
    assert describe(torch.tensor([0.0, NAN])) == "float32 (2,) in [nan, nan]"
    assert describe(torch.zeros(0, 3)) == "float32 (0, 3)"
    assert describe(torch.ones(2, device="meta")) == "float32 (2,) on meta"
