"""Shakespeare's plays, a million characters."""

from __future__ import annotations

from typing import ClassVar

from tasks.language import LanguageTask
from tasks.plugin import Positive, options


@options
class TinyShakespeare(LanguageTask):
    """A language model of Shakespeare's plays (a text of a million characters, cut into documents)."""

    dataset: ClassVar[str] = "karpathy/tiny_shakespeare"
    folder: ClassVar[str] = "tiny_shakespeare"
    licence: ClassVar[str] = "public domain texts"
    paper: ClassVar[str] = "Karpathy, The Unreasonable Effectiveness of Recurrent Neural Networks, 2015"

    base_size: Positive | None = None  # all there is
