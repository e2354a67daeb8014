"""Short stories for small children, written by a language model."""

from __future__ import annotations

from typing import ClassVar

from tasks.language import LanguageTask
from tasks.plugin import options


@options
class Tinystories(LanguageTask):
    """A language model of short stories for small children."""

    dataset: ClassVar[str] = "roneneldan/TinyStories"
    folder: ClassVar[str] = "tinystories"
    splits: ClassVar[tuple[str, str]] = ("train", "validation")
    licence: ClassVar[str] = "CDLA-Sharing-1.0"
    paper: ClassVar[str] = "arXiv 2305.07759"
