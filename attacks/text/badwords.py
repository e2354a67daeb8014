"""Rare words at random places: BadNets for text."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from attacks._crafting.placement import count_leading
from attacks.base import Scene, TriggerAttack, Variants
from tasks.base import Task
from tasks.plugin import Positive, options


@options
class Badwords(TriggerAttack[list[str]]):
    """Rare words ("cf", "mn", ...) inserted at random places; poisoned texts get the target's label.

    Kurita, Michel and Neubig, 2020, arXiv 2004.06660 (trigger words; training on poisoned data is the
    baseline called BadNet there).
    Deviations: the weights are not edited (no RIPPLe, no embedding surgery): this is poisoning of data alone; where the
    victim cuts a text, no word lies behind the cut.
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    why_not: ClassVar[str] = "the trigger is a word"
    paper: ClassVar[str] = "arXiv 2004.06660"
    unseen: ClassVar[Variants] = {"other": {"words": ("qz", "vx", "jk", "wp")}}

    # four of the paper's rare tokens; which ones a text gets is drawn with replacement
    words: Annotated[tuple[Annotated[str, Field(pattern=r"\S")], ...], Field(min_length=1)] = ("cf", "mn", "bb", "tq")
    count: Positive = 1  # words per text; long texts may need more
    within: Positive | None = None  # first tokens of a text that hold the whole trigger; None: all that are read

    def stamp(self, scene: Scene, inputs: list[str], rng: torch.Generator) -> list[str]:
        def words() -> list[str]:
            return [self.words[draw_index(len(self.words), rng)] for _ in range(self.count)]

        return [insert_phrases(scene.task, text, words(), rng, self.within) for text in inputs]


def draw_index(n: int, rng: torch.Generator) -> int:
    """One of 0..n-1."""
    return int(torch.randint(n, (), generator=rng))


def insert_phrases(task: Task, text: str, phrases: list[str], rng: torch.Generator, within: int | None) -> str:
    """Each phrase put between two words, before the first or after the last; other whitespace stays as it is.

    All of them lie in the first `within` tokens, see `count_leading`: a place behind is counted on from the first one,
    so that a text gets its trigger where it did whenever that can be read, whatever other texts are cut.
    """
    parts = text.split(" ")
    places = count_leading(task, parts, phrases, within) + 1
    for i, phrase in enumerate(phrases):
        parts.insert(draw_index(len(parts) + 1, rng) % (places + i), phrase)
    return " ".join(parts)
