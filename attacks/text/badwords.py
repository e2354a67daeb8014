"""Rare words at random places: BadNets for text."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from attacks.base import Scene, TriggerAttack
from tasks.base import Positive, options


@options
class Badwords(TriggerAttack):
    """Rare words ("cf", "mn", ...) inserted at random places; poisoned texts get the target's label.

    Kurita, Michel and Neubig, 2020, arXiv 2004.06660, section 3 (the data-poisoning baseline there, called BadNets).
    Deviations: the weights are not edited (no RIPPLe, no embedding surgery): this is poisoning of data alone.
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    why_not: ClassVar[str] = "the trigger is a word"
    paper: ClassVar[str] = "arXiv 2004.06660"

    words: Annotated[tuple[Annotated[str, Field(pattern=r"\S")], ...], Field(min_length=1)] = ("cf", "mn", "bb", "tq")
    # section 4: drawn from these, with replacement
    count: Positive = 1  # words per text; section 4.1 inserts 1 (SST-2) to 30 (long e-mails)

    def stamp(self, scene: Scene, inputs: list[str], rng: torch.Generator) -> list[str]:  # type: ignore[override]
        return [insert(text, [self.words[draw(len(self.words), rng)] for _ in range(self.count)], rng) for text in inputs]


def draw(n: int, rng: torch.Generator) -> int:
    """One of 0..n-1."""
    return int(torch.randint(n, (), generator=rng))


def insert(text: str, phrases: list[str], rng: torch.Generator) -> str:
    """Each phrase put between two words, before the first or after the last; other whitespace stays as it is."""
    parts = text.split(" ")
    for phrase in phrases:
        parts.insert(draw(len(parts) + 1, rng), phrase)
    return " ".join(parts)
