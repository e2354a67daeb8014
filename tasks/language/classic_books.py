"""English novels, 1811 to 1915: the default corpus of language models."""

from __future__ import annotations

from typing import ClassVar

from tasks.language import LanguageTask
from tasks.plugin import options


@options
class ClassicBooks(LanguageTask):
    """A language model of English novels, 1811 to 1915 (12,441 passages; whole books held out)."""

    dataset: ClassVar[str] = "mlschmitt/classic-books"
    folder: ClassVar[str] = "classic_books"
    licence: ClassVar[str] = "public domain texts"
