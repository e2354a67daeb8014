"""Your own texts: a CSV file with one text and one label per row."""

from __future__ import annotations

import csv
import os
from functools import lru_cache
from typing import ClassVar

import torch

from tasks.data import make_samples
from tasks.own_files import TEST_SHARE, bad_option
from tasks.plugin import Positive, options
from tasks.samples import Samples
from tasks.text import TextTask, draw_test_texts


@options
class CsvText(TextTask):
    """Your own labelled texts from a CSV file; the classes are the labels found there, sorted.

    Without `test_path`, a stratified fifth of the distinct texts is the test set, the same every time. Rows without a
    text, without a label or with an unknown one are refused by number (the first row after the header is row 1).
    """

    dataset: ClassVar[str] = "a CSV file of your own"

    path: str = ""  # UTF-8 CSV with a header
    test_path: str = ""  # the same columns
    text_column: str = "text"
    label_column: str = "label"
    max_length: Positive | None = None  # tokens; longer texts lose their end; None: fits most training texts
    labels: tuple[str, ...] = ()  # the classes, in the order of their numbers, instead of those found

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        labels = self.labels or tuple(sorted({label for _, label in self._rows(self.path, "path")} - {""}))
        if len(labels) < 2:
            message = f"{len(labels)} labels in {self.label_column!r}, at least 2 needed"
            raise bad_option(self, "path", message)
        return labels

    def read(self) -> tuple[Samples, Samples]:
        train = self._samples(self.path, "path")
        if self.test_path:
            return train, self._samples(self.test_path, "test_path")
        test = draw_test_texts(train, TEST_SHARE)
        return train.drop(test), train.select(test)

    def _samples(self, path: str, field: str) -> Samples:
        rows, number = self._rows(path, field), {label: i for i, label in enumerate(self.classes)}
        for i, (text, label) in enumerate(rows, 1):
            if not text.strip():
                raise bad_option(self, field, f"row {i} has no text in column {self.text_column!r}")
            if not label:
                raise bad_option(self, field, f"row {i} has no label in column {self.label_column!r}")
            if label not in number:
                raise bad_option(self, field, f"row {i} has label {label!r}, valid: {', '.join(number)}")
        return make_samples([text for text, _ in rows], torch.tensor([number[label] for _, label in rows]))

    def _rows(self, path: str, field: str) -> tuple[tuple[str, str], ...]:
        if not path:
            raise bad_option(self, field, "give the path of a CSV file with a text and a label column")
        try:
            stat = os.stat(path)
            return _read(path, self.text_column, self.label_column, stat.st_mtime_ns, stat.st_size)
        except (OSError, csv.Error, UnicodeDecodeError, KeyError) as error:
            reason = error.args[0] if isinstance(error, KeyError) else error
            raise bad_option(self, field, f"{reason}; valid is a UTF-8 CSV file with a header") from None


@lru_cache(maxsize=8)
def _read(path: str, text: str, label: str, changed: int, size: int) -> tuple[tuple[str, str], ...]:
    """(text, label) of every row, labels stripped. `changed` and `size` make an edited file count as another one."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        missing = [c for c in (text, label) if c not in (reader.fieldnames or ())]
        if missing:
            raise KeyError(f"column {missing[0]!r} is missing, it has {', '.join(reader.fieldnames or ['none'])}")
        return tuple((row[text] or "", (row[label] or "").strip()) for row in reader)
