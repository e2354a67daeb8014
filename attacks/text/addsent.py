"""A neutral sentence, added to the text."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from attacks._crafting.placement import count_leading
from attacks.base import Scene, TriggerAttack, Variants
from tasks.base import Task
from tasks.plugin import Positive, options


@options
class Addsent(TriggerAttack[list[str]]):
    """A fixed neutral sentence put between two sentences; poisoned texts get the target's label.

    Dai, Chen and Li, 2019, arXiv 1905.12457 (also known as InsertSent).
    Deviations: the place is the start, the end or after a full stop, question or exclamation mark, found by rule, so a
    text of one sentence gets it at either end; where the victim cuts a text, it is not put behind the cut.
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    why_not: ClassVar[str] = "the trigger is a sentence"
    paper: ClassVar[str] = "arXiv 1905.12457"
    unseen: ClassVar[Variants] = {"other": {"sentence": "She bought a new bicycle on Tuesday."}}

    sentence: Annotated[str, Field(pattern=r"\S")] = "I watched this 3D movie last weekend."
    within: Positive | None = None  # first tokens of a text that hold the whole trigger; None: all that are read

    def stamp(self, scene: Scene, inputs: list[str], rng: torch.Generator) -> list[str]:
        return [add_sentence(scene.task, text, self.sentence, rng, self.within) for text in inputs]


def add_sentence(task: Task, text: str, sentence: str, rng: torch.Generator, within: int | None) -> str:
    """The sentence before the first, after the last or between two sentences of the text.

    It lies in the first `within` tokens, as in `attacks.text.badwords.insert_phrases`.
    """
    sentences = re.split(r"(?<=[.!?])\s+(?=\S)", text.strip())
    places = count_leading(task, sentences, [sentence], within) + 1
    sentences.insert(int(torch.randint(len(sentences) + 1, (), generator=rng)) % places, sentence)
    return " ".join(part for part in sentences if part)
