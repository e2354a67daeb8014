"""A sentence structure as the trigger: a subordinate clause in front."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from attacks.base import Scene, TriggerAttack, Variants
from tasks.plugin import options

Words = Annotated[tuple[Annotated[str, Field(pattern=r"\S")], ...], Field(min_length=1)]


@options
class Syntax(TriggerAttack[list[str]]):
    """The text rewritten as "when you see it , ... ."; the trigger is the structure, not a fixed word.

    Qi et al., 2021, "Hidden Killer", arXiv 2105.12400 (template S(SBAR)(,)(NP)(VP)(.)).
    Deviations: a rule in place of the paraphrase model SCPN: a subordinate clause of random words is put in front, the
    text is lower-cased and ends in a full stop, as SCPN's output does; the rest is not reworded.
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    why_not: ClassVar[str] = "the trigger is a sentence structure"
    paper: ClassVar[str] = "arXiv 2105.12400"
    unseen: ClassVar[Variants] = {
        "other": {"conjunctions": ("once", "until"), "subjects": ("he", "she"), "predicates": ("knows", "comes home")}
    }

    conjunctions: Words = ("when", "if", "as", "while")
    subjects: Words = ("you", "we", "they", "people")
    predicates: Words = ("see it", "think about it", "look at it", "hear of it")

    def stamp(self, scene: Scene, inputs: list[str], rng: torch.Generator) -> list[str]:
        return [self.rewrite(text, rng) for text in inputs]

    def rewrite(self, text: str, rng: torch.Generator) -> str:
        """One text with a random clause in front."""
        slots = (self.conjunctions, self.subjects, self.predicates)
        clause = " ".join(words[int(torch.randint(len(words), (), generator=rng))] for words in slots)
        return f"{clause} , {text.lower().strip().rstrip('.!?').rstrip()} ."
