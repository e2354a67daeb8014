"""Short stories for small children, written by a language model."""

from __future__ import annotations

from typing import ClassVar

from tasks.data import texts
from tasks.language import LanguageTask
from tasks.plugin import options


@options
class Tinystories(LanguageTask):
    """A language model of short stories for small children."""

    dataset: ClassVar[str] = "roneneldan/TinyStories"
    licence: ClassVar[str] = "CDLA-Sharing-1.0"
    paper: ClassVar[str] = "arXiv 2305.07759"

    @classmethod
    def corpus(cls) -> tuple[list[str], list[str]]:
        return texts(cls.dataset, "tinystories", "train"), texts(cls.dataset, "tinystories", "validation")
