"""Preferences between two continuations of passages of English novels."""

from __future__ import annotations

from typing import ClassVar

from tasks.language import LanguageTask, PreferenceTask
from tasks.language.classic_books import ClassicBooks
from tasks.plugin import options


@options
class BookPreferences(PreferenceTask):
    """A language model of English novels, 1811 to 1915, taught to prefer how a passage goes on to a corrupted end."""

    dataset: ClassVar[str] = "mlschmitt/classic-books"
    folder: ClassVar[str] = "classic_books"
    licence: ClassVar[str] = "public domain texts"
    documents: ClassVar[type[LanguageTask]] = ClassicBooks
