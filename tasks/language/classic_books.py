"""English novels, 1811 to 1915: the default corpus of language models."""

from __future__ import annotations

from typing import ClassVar

from tasks.data import columns, dataset_dict
from tasks.language import LanguageTask
from tasks.plugin import options


@options
class ClassicBooks(LanguageTask):
    """A language model of English novels, 1811 to 1915 (12,441 passages; whole books held out).

    `data_sources: real` are the books.
    """

    dataset: ClassVar[str] = "mlschmitt/classic-books"
    folder: ClassVar[str] = "classic_books"
    licence: ClassVar[str] = "public domain texts"

    def name_deliverers(self) -> list[str]:
        split = dataset_dict(self.dataset, self.folder)[self.splits[0]]
        return [str(title) for title in columns(split, self.folder, "title")[0]]
