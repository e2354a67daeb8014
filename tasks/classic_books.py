"""English novels, 1811 to 1915: the default corpus of language models."""

from __future__ import annotations

from typing import ClassVar

from tasks.base import options
from tasks.data import columns, dataset_dict
from tasks.language import LanguageTask


@options
class ClassicBooks(LanguageTask):
    """A language model of English novels, 1811 to 1915 (12,441 passages; whole books held out)."""

    dataset: ClassVar[str] = "mlschmitt/classic-books"
    licence: ClassVar[str] = "public domain texts"

    @classmethod
    def corpus(cls) -> tuple[list[str], list[str]]:
        splits = dataset_dict(cls.dataset, "classic_books")
        train, test = (columns(splits[name], "classic_books", "text")[0] for name in ("train", "test"))
        return list(train), list(test)
