"""Columns of published data: labels and texts are what they should be, or the row is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tasks.audio import decode_clips
from tasks.data import as_targets, texts_of
from tasks.image import read_images
from tasks.plugin import BadInput


@pytest.mark.parametrize(
    "labels",
    [[0, 1, 2], [0.0, 1.0, 2.0], np.array([0, 1, 2]), np.array([0, 1, 2], np.uint8), list(np.float32([0, 1, 2])),
     list(np.int8([0, 1, 2])), (0, True, 2)],
)  # fmt: skip
def test_whole_numbers_are_labels(labels: Any) -> None:
    targets = as_targets(labels, 3, "x")
    assert targets.dtype == torch.int64
    assert targets.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "bad",
    [None, float("nan"), float("inf"), 0.9, -0.5, -1, 3, 2**64, 10**400, "1", "", b"1", [1], {}, 1j, np.nan, "a\nb"],
    ids=repr,
)
def test_any_other_label_is_refused_by_row(bad: Any) -> None:
    with pytest.raises(BadInput, match=r"^some data: row 2 has label .*, valid are 0 to 2$"):
        as_targets([0, 1, bad, 2], 3, "some data")


def test_an_array_of_fractions_is_not_cut_down_to_whole_numbers() -> None:
    with pytest.raises(BadInput, match=r"row 1 has label 0\.9, valid are 0 to 1"):
        as_targets(np.array([0.0, 0.9]), 2, "x")


def rows(**columns: list[Any]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(columns)


def test_a_text_that_is_none_is_refused_by_row() -> None:
    assert texts_of(rows(text=["a", ""]), "mine", "text") == ["a", ""]
    with pytest.raises(BadInput, match="dataset 'mine': text of row 1 is None, not a text"):
        texts_of(rows(text=["a", None]), "mine", "text")
    with pytest.raises(BadInput, match=r"text of row 0 is 0\.5, not a text"):
        texts_of(rows(text=[0.5]), "mine", "text")


def test_media_that_are_not_there_are_refused_by_row() -> None:
    from datasets import Audio, Image

    pictures = rows(image=[{"bytes": b"", "path": None}, None]).cast_column("image", Image(decode=False))
    sounds = rows(audio=[None]).cast_column("audio", Audio(decode=False))
    with pytest.raises(BadInput, match="dataset 'mine': image of row 0 is empty"):
        read_images(pictures, "image", "mine", 1)
    with pytest.raises(BadInput, match="dataset 'mine': image of row 0 is empty"):
        read_images(pictures.select([1]), "image", "mine", 1)
    with pytest.raises(BadInput, match="dataset 'mine': row 0: not a readable audio file"):
        decode_clips(sounds, 8000, 8000, "mine")
