"""The split rule: no class vanishes, or the task is refused in one line; what is decided for the user is said."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import wavfile

from harness.plugins.registry import create
from tasks.base import Task
from tasks.plugin import BadInput
from tasks.samples import Samples, Splits
from tasks.splits import MOST, Draw, draw_balanced, draw_reserve, fill_in_proportion, require_classes

Counts = Mapping[str, int]


def write_texts(path: Path, counts: Counts, alike: bool = False) -> str:
    """A CSV of so many different texts per label, or of one text per label again and again."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        rows.writerows([f"{label} {0 if alike else i} y", label] for label, n in counts.items() for i in range(n))
    return str(path)


def write_pictures(path: Path, counts: Counts) -> str:
    for label, n in counts.items():
        (path / label).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(np.full((4, 4, 3), i % 256, dtype=np.uint8)).save(path / label / f"{i:03}.bmp")
    return str(path)


def write_sounds(path: Path, counts: Counts) -> str:
    for label, n in counts.items():
        (path / label).mkdir(parents=True)
        for i in range(n):
            wavfile.write(path / label / f"{i:03}.wav", 1000, np.full(100, i + 1, dtype=np.int16))
    return str(path)


WRITERS = {"csv_text": write_texts, "image_folder": write_pictures, "audio_folder": write_sounds}


def load(name: str, **options: Any) -> Splits:
    return cast(Task, create("tasks", name, options)).load()


def counts_of(samples: Samples) -> list[int]:
    return samples.targets.bincount().tolist()


def all_counts(splits: Splits) -> list[list[int]]:
    """Rows by class: train, test, reserve."""
    return [counts_of(part) for part in (splits.train, splits.test, splits.reserve)]


@pytest.mark.parametrize(
    ("name", "counts", "options", "expected"),
    [
        ("image_folder", {"common": 400, "rare": 20}, {}, [[256, 13], [80, 4], [64, 3]]),
        ("csv_text", {"ham": 300, "spam": 15}, {}, [[192, 10], [60, 3], [48, 2]]),
        ("audio_folder", {"long": 60, "short": 6}, {"rate": 1000}, [[39, 4], [12, 1], [9, 1]]),
        ("image_folder", {"a": 125, "b": 125}, {}, [[80, 80], [25, 25], [20, 20]]),
        ("csv_text", {"a": 1000, "b": 10, "c": 3}, {}, [[640, 7, 2], [200, 2, 1], [160, 1]]),
        ("csv_text", {"a": 500, "b": 100, "c": 10}, {"reserve_size": 31}, [[375, 75, 7], [100, 20, 2], [25, 5, 1]]),
        ("csv_text", {"a": 500, "b": 10}, {"reserve_size": 5}, [[396, 7], [100, 2], [4, 1]]),
        ("image_folder", {"a": 30, "b": 2}, {}, [[20, 1], [6, 1], [4]]),
        ("csv_text", {"ham": 300, "spam": 15}, {"train_size": 40}, [[30, 10], [60, 3], [48, 2]]),
        ("csv_text", {"ham": 300, "spam": 15}, {"train_size": 2, "test_size": 2}, [[1, 1], [1, 1], [48, 2]]),
        ("csv_text", {"ham": 20, "spam": 20}, {"reserve_size": 2}, [[15, 15], [4, 4], [1, 1]]),
        ("csv_text", {"ham": 30, "spam": 30}, {"train_size": 40}, [[20, 20], [6, 6], [4, 4]]),
        ("csv_text", {"a": 6, "b": 6, "c": 6}, {"reserve_size": 2}, [[4, 4, 5], [1, 1, 1], [1, 1]]),
    ],
)
def test_every_class_keeps_rows(
    tmp_path: Path, name: str, counts: Counts, options: dict[str, Any], expected: list[list[int]]
) -> None:
    path = WRITERS[name](tmp_path / "data", counts)
    assert all_counts(load(name, path=path, **options)) == expected


@pytest.mark.parametrize(
    ("counts", "options", "notes"),
    [
        ({"a": 300, "b": 15}, {}, ["the reserve has 50 rows, not reserve_size=200: at most a fifth of every class"]),
        ({"a": 50, "b": 50}, {"reserve_size": 16}, []),
        (
            {"a": 50, "b": 3}, {"reserve_size": 8},
            ["the reserve (reserve_size=8) has no row of 'b' (2 rows)"],
        ),
        (
            {"a": 50, "b": 10}, {"reserve_size": 1},
            ["the reserve (reserve_size=1) has no row of 'b' (8 rows)"],
        ),
        (
            {"a": 50, "b": 10}, {"reserve_size": 9, "train_size": 20},
            ["train_size=20 is not balanced: it takes every row of 'b' (7 rows)"],
        ),
        (
            {"a": 50, "b": 10}, {"reserve_size": 9, "test_size": 10},
            ["test_size=10 is not balanced: it takes every row of 'b' (2 rows)"],
        ),
        (
            {"a": 50} | {f"rare {i}": 2 for i in range(5)}, {"reserve_size": 8},
            ["the reserve (reserve_size=8) has no row of 'rare 0' (1 row), 'rare 1' (1 row), 'rare 2' (1 row) and 2 "
             "more classes"],
        ),
    ],
)  # fmt: skip
def test_what_is_decided_is_said(tmp_path: Path, counts: Counts, options: dict[str, Any], notes: list[str]) -> None:
    assert list(load("csv_text", path=write_texts(tmp_path / "a.csv", counts), **options).notes) == notes


def test_a_task_adds_its_own_notes_on_the_training_set(tmp_path: Path) -> None:
    from tasks.text.synthetic_reviews import SyntheticReviews

    class Wordy(SyntheticReviews):
        def describe_choices(self, train: Samples) -> tuple[str, ...]:
            return (f"{len(train)} texts",)

    assert Wordy(train_size=40).load().notes == ("40 texts",)


@pytest.mark.parametrize(
    ("counts", "options", "why"),
    [
        ({"a": 1000, "b": 10, "c": 1}, {}, r"a\.csv'.*: class 'c' has 1 training and 0 test rows.*two or more"),
        ({f"{i / 7:.3f}": 1 for i in range(60)}, {}, r"column 'label' has 60 different labels in 60 rows"),
        ({"neg": 2, "pos": 2}, {"reserve_size": 2}, r"largest class has 1 training row,.*reserve_size=2.*a fifth"),
        ({"a": 5, "b": 5}, {}, r"largest class has 4 training rows.*5 training rows or more"),
        ({"a": 20, "b": 20}, {"labels": ("a", "b", "c")}, r"class 'c' has 0 training and 0 test rows"),
        ({}, {"labels": ("a", "b")}, r"path='.*a\.csv': there is a header, and no row after it"),
        ({"a": 30, "b": 30}, {"test_size": 1}, r"test_size=1: the test set of .*a\.csv' has 2 classes"),
        ({"a": 30, "b": 30}, {"train_size": 1}, r"train_size=1: what the reserve leaves of .*a\.csv' has 2 classes"),
        ({"a": 30, "b": 30}, {"test_size": 13}, r"test_size=13: the test set of .* has 12 rows"),
        ({"a": 30, "b": 30}, {"train_size": 41}, r"train_size=41: what the reserve leaves of .* has 40 rows"),
    ],
)
def test_a_class_without_rows_is_refused_by_name(
    tmp_path: Path, counts: Counts, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(BadInput, match=why) as error:
        load("csv_text", path=write_texts(tmp_path / "a.csv", counts), **options)
    assert "\n" not in str(error.value)


def test_texts_that_are_all_alike_are_one_text(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.csv", {"a": 50, "b": 50}, alike=True)
    with pytest.raises(BadInput, match=r"class 'a' has 50 training and 0 test rows.*different rows"):
        load("csv_text", path=path)


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ({}, r"test_path='.*t\.csv': there is a header, and no row after it"),
        ({"neg": 9}, r"test_path='.*t\.csv': class 'pos' has 20 training and 0 test rows.*add rows of it"),
        ({"pos": 1}, r"class 'neg' has 20 training and 0 test rows"),
    ],
)
def test_a_test_file_that_lacks_a_class_is_refused(tmp_path: Path, counts: Counts, why: str) -> None:
    path = write_texts(tmp_path / "a.csv", {"neg": 20, "pos": 20})
    with pytest.raises(BadInput, match=why):
        load("csv_text", path=path, test_path=write_texts(tmp_path / "t.csv", counts))


def test_a_test_file_with_a_row_of_every_class_is_enough(tmp_path: Path) -> None:
    path, test = (write_texts(tmp_path / f"{n}.csv", {"neg": n, "pos": n}) for n in (20, 1))
    splits = load("csv_text", path=path, test_path=test)
    assert all_counts(splits) == [[16, 16], [1, 1], [4, 4]]


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("digits", {"test_size": 1}, "test_size=1: the test set of digits has 10 classes, and every class needs a row"),
        ("digits", {"train_size": 9}, "train_size=9: what the reserve leaves of digits has 10 classes"),
        ("digits", {"test_size": 361}, "test_size=361: the test set of digits has 360 rows"),
        ("digits", {"train_size": 1238}, "train_size=1238: what the reserve leaves of digits has 1237 rows"),
        ("digits", {"reserve_size": 1000}, "reserve_size=1000: digits has 1437 rows, of which 859 can be set aside"),
        ("digits_transfer", {"reserve_size": 725}, "reserve_size=725: .*at most three fifths of every class"),
        ("synthetic_stories", {"reserve_size": 700}, "reserve_size=700: synthetic_stories has"),
        ("tones_synthesiser", {"test_size": 5}, "test_size=5: .* has 6 classes"),
    ],
)
def test_sizes_that_leave_a_class_of_a_published_task_without_rows(
    name: str, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(BadInput, match=why):
        load(name, **options)


def test_published_tasks_at_their_own_sizes_have_nothing_to_say() -> None:
    assert load("digits").notes == load("synthetic_tones").notes == ()
    assert [note for note in load("synthetic_stories").notes if "base_seed" not in note] == []


@pytest.mark.parametrize(
    ("train", "test", "names", "why"),
    [
        ([0, 1], [], ("a", "b"), "there: there are no test rows"),
        ([], [0], (), "here: there are no training rows"),
        ([0], [], (), "there: there are no test rows"),
        ([0, 2], [0, 1], ("a", "b"), "here: training row 1 has label 2, valid: 0 to 1"),
        ([0, 1], [0, -1], ("a", "b"), "there: test row 1 has label -1, valid: 0 to 1"),
        ([0, 0], [0, 1], ("a", "b"), "here: class 'b' has 0 training and 1 test rows"),
        ([0, 1, 2], [0], ("a", "b", "c"), r"there: class 'b' has 1 training and 0 test rows \(2 of 3 classes"),
    ],
)
def test_rows_that_are_missing_or_of_no_class(
    train: list[int], test: list[int], names: tuple[str, ...], why: str
) -> None:
    parts = torch.tensor(train, dtype=torch.long), torch.tensor(test, dtype=torch.long)
    with pytest.raises(BadInput, match=why):
        require_classes(*parts, names, "here", "there", one_source=False)


def test_a_task_without_classes_is_one() -> None:
    targets = torch.tensor([3, 0, 9, 1, 2])
    require_classes(targets, targets, (), "here", "here", one_source=False)
    mask, _ = draw_reserve(targets, 2, (), "balanced", "here")
    assert mask.tolist() == [True, True, False, False, False]
    assert draw_balanced(targets, 1, (), "train_size", "here")[0].sum() == 1


def test_largest_remainders() -> None:
    assert fill_in_proportion([60, 30, 10], [12, 6, 2], 10) == [6, 3, 1]
    assert fill_in_proportion([90, 5, 5], [18, 1, 1], 10) == [8, 1, 1], "a row of each, taken from the largest"
    assert fill_in_proportion([50, 50, 50], [10, 10, 10], 2) == [1, 1, 0]
    assert fill_in_proportion([97, 3], [19, 0], 10) == [10, 0]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(1, 250),
    st.sampled_from(["balanced", "proportional"]), st.integers(0, 5),
)  # fmt: skip
def test_the_reserve_takes_its_share_of_a_class_at_most(counts: list[int], size: int, draw: Draw, seed: int) -> None:
    """And it is refused, or has the size asked for, or says that it has not."""
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    targets = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))]
    names = [f"class {c}" for c in range(len(counts))]
    try:
        mask, notes = draw_reserve(targets, size, names, draw, "here")
    except BadInput:
        assert sum(int(MOST[draw] * n) for n in counts) < size
        return
    taken = targets[mask].bincount(minlength=len(counts)).tolist()
    assert all(took <= int(MOST[draw] * n) < n for took, n in zip(taken, counts, strict=True))
    assert sum(taken) == size or (sum(taken) < size and f"not reserve_size={size}" in notes[0])
    if draw == "proportional":
        by_size = [took for _, took in sorted(zip(counts, taken, strict=True))]
        assert all(more >= less - 1 for less, more in pairwise(by_size)), "a larger class gives as much"
    unsaid = [n for name, n in zip(names, taken, strict=True) if not n and not any(repr(name) in s for s in notes)]
    assert len(unsaid) <= max(0, taken.count(0) - 3), "classes without a row are named, three of them"
