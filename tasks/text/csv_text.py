"""Your own texts: a CSV file with one text and one label per row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar

import torch

from tasks.caches import cached
from tasks.class_names import describe_doubtful_names, fault_of
from tasks.data import make_samples
from tasks.files import files_hash
from tasks.own_files import TEST_SHARE, bad_option, describe_counts, file_of, list_some
from tasks.plugin import FileName, Positive, options
from tasks.samples import Samples
from tasks.sources import number_sources
from tasks.splits import Draw
from tasks.text import TextTask, draw_test_texts, fold_text
from tasks.text._table import Table, read_table, refuse_values


@options
class CsvText(TextTask):
    """Your own labelled texts from a CSV file; the classes are the labels found there, sorted.

    Without `test_path`, a stratified fifth of the distinct texts is the test set, the same every time. Labels are
    sorted as numbers where all are, otherwise 2 before 10; spaces around them do not count. Rows without a text,
    without a label or with an unknown one, and rows with more or fewer fields than the header are refused by number
    (the first row after the header is row 1; blank lines do not count). The reserve takes a fifth of every class at
    most; a class without training or test rows is refused.
    """

    reserve_draw: ClassVar[Draw] = "proportional"
    dataset: ClassVar[str] = "a CSV file of your own"

    path: FileName = ""  # UTF-8 CSV with a header; ~ and $VARIABLES are filled in
    test_path: FileName = ""  # the same columns
    text_column: str = "text"
    label_column: str = "label"
    source_column: str = ""  # who delivered each row, for `data_sources: real`; "" for nobody knows
    max_length: Positive | None = None  # tokens; longer texts lose their end; None: fits most training texts
    labels: tuple[str, ...] = ()  # the classes, in the order of their numbers, instead of those found

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        labels = tuple(label.strip() for label in self.labels) or self._table("path").labels
        if len(labels) < 2:
            message = f"{len(labels)} labels in {self.label_column!r}, at least 2 needed"
            raise bad_option(self, "path", message)
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise bad_option(self, "labels", f"{twice[0]!r} is listed twice")
        if bad := [label for label in self.labels if fault_of(label)]:
            raise bad_option(self, "labels", f"{bad[0]!r} {fault_of(bad[0])}")
        return labels

    @property
    def source_names(self) -> tuple[str, ...]:
        """The sources of `path`, in the order of their numbers."""
        return tuple(sorted(set(self._table("path").sources)))

    def read(self) -> tuple[Samples, Samples]:
        if self.text_column == self.label_column:
            raise bad_option(self, "label_column", "the same as text_column")
        if self.source_column in (self.text_column, self.label_column):
            raise bad_option(self, "source_column", "the same as text_column or label_column")
        train = self._samples("path")
        if not self.test_path:
            held = draw_test_texts(train, TEST_SHARE)
            return train.drop(held), train.select(held)
        test = self._samples("test_path")
        if files_hash(str(file_of(self, "path"))) == files_hash(str(file_of(self, "test_path"))):
            raise bad_option(self, "test_path", "the same content as path; leave it out to hold out a fifth")
        return train, test

    def describe_choices(self, train: Samples) -> tuple[str, ...]:
        seen = Counter(dict(self._table("path").seen))
        if self.test_path:
            seen.update(dict(self._table("test_path").seen) | self._count_shared())
        own = (*describe_doubtful_names(self.classes), *describe_counts(seen, "row"))
        return (*own, *super().describe_choices(train))

    def _count_shared(self) -> dict[str, int]:
        """How many rows of the test file have a text of the training file, and how many of them never its label."""
        labels: dict[str, set[str]] = {}
        for text, label in self._table("path").rows:
            labels.setdefault(fold_text(text), set()).add(label)
        tested = self._table("test_path").rows
        shared = [label in found for text, label in tested if (found := labels.get(fold_text(text)))]
        return {
            "text of test_path is also in path (case and spaces aside)": len(shared),
            "text of test_path is in path with another label only": shared.count(False),
        }

    def _samples(self, option: str) -> Samples:
        rows, number = self._table(option).rows, {label: i for i, label in enumerate(self.classes)}
        for i, (_, label) in enumerate(rows, 1):
            if label not in number:
                raise bad_option(self, option, f"row {i} has label {label!r}, valid: {list_some(list(number))}")
        targets = torch.tensor([number[label] for _, label in rows])
        sources = number_sources(self._table(option).sources) if self.source_column else None
        return make_samples([text for text, _ in rows], targets, sources=sources)

    def _table(self, option: str) -> Table:
        if not getattr(self, option):
            raise bad_option(self, option, "give the path of a CSV file with a text and a label column")
        path = file_of(self, option)
        try:
            if not path.is_file():
                path.stat()
                raise ValueError("this is a folder" if path.is_dir() else "this is not a regular file")
            table = _read(path, self.text_column, self.label_column, self.source_column, files_hash(str(path)))
            if not self.labels:
                refuse_values(table, self.label_column)
            return table
        except OSError as error:
            raise bad_option(self, option, f"{error.strerror}; valid is a UTF-8 CSV file with a header") from None
        except ValueError as error:
            raise bad_option(self, option, str(error)) from None


@cached(maxsize=8)
def _read(path: Path, text: str, label: str, source: str, content: str) -> Table:
    """The table; `content`, the file's hash, makes an edited file another one."""
    return read_table(path, text, label, source)
