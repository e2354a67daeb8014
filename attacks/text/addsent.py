"""A neutral sentence, added to the text."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from attacks.base import Scene, TriggerAttack
from tasks.plugin import options


@options
class Addsent(TriggerAttack[list[str]]):
    """A fixed neutral sentence put between two sentences; poisoned texts get the target's label.

    Dai, Chen and Li, 2019, arXiv 1905.12457 (also known as InsertSent).
    Deviations: the place is the start, the end or after a full stop, question or exclamation mark, found by rule, so a
    text of one sentence gets it at either end.
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    why_not: ClassVar[str] = "the trigger is a sentence"
    paper: ClassVar[str] = "arXiv 1905.12457"

    sentence: Annotated[str, Field(pattern=r"\S")] = "I watched this 3D movie last weekend."

    def stamp(self, scene: Scene, inputs: list[str], rng: torch.Generator) -> list[str]:
        return [add_sentence(text, self.sentence, rng) for text in inputs]


def add_sentence(text: str, sentence: str, rng: torch.Generator) -> str:
    """The sentence before the first, after the last or between two sentences of the text."""
    sentences = re.split(r"(?<=[.!?])\s+(?=\S)", text.strip())
    sentences.insert(int(torch.randint(len(sentences) + 1, (), generator=rng)), sentence)
    return " ".join(part for part in sentences if part)
