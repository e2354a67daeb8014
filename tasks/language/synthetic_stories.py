"""Made-up stories from a small grammar: no download."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from tasks.language import LanguageTask
from tasks.plugin import Above0, Positive, options

WORDS = {
    "who": "Anna Boris Clara Dmitri Edith Felix Greta Hugo Ida Jonas",
    "kin": "brother sister uncle aunt cousin neighbour teacher friend",
    "place": "harbour garden market library station mill bridge kitchen forest attic",
    "thing": "lantern basket letter kettle violin map coin blanket clock ladder",
    "how": "slowly quietly gladly at_once with_care in_a_hurry without_a_word",
    "what": "old small heavy broken golden empty strange wet",
    "did": "found carried hid sold mended painted dropped borrowed",
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
}
LINES = (
    "On {day} {who} went to the {place} and {did} a {what} {thing}.",
    "{who} {how} {did} the {thing} that lay in the {place}.",
    "The {kin} of {who} never liked the {what} {thing}.",
    '"Where is my {thing}?" asked {who}.',
    '"It is in the {place}," said the {kin} {how}.',
    "Nobody in the {place} had seen such a {what} {thing} before.",
    "By {day} the {place} was {what} again.",
    "{who} and the {kin} walked home from the {place} {how}.",
)
STORIES, TEST = 1600, 160  # of about 300 characters


@options
class SyntheticStories(LanguageTask):
    """A language model of made-up little stories, embedded: needs no download."""

    dataset: ClassVar[str] = "embedded"
    revision: ClassVar[str] = "tinydrop's grammar, 1"
    licence: ClassVar[str] = "Apache-2.0 (made by this project)"

    vocabulary: Annotated[int, Field(ge=256)] = 512
    width: Positive = 128
    depth: Positive = 2
    base_size: Positive | None = 500  # of its stories
    lr: Above0 = 2e-3

    @classmethod
    def corpus(cls) -> tuple[list[str], list[str]]:
        rng = torch.Generator().manual_seed(30)  # the corpus's own, not the cell's
        stories = [write(6, rng) for _ in range(STORIES)]
        return stories[TEST:], stories[:TEST]


def write(lines: int, rng: torch.Generator) -> str:
    """A story of so many sentences."""

    def one_of(choices: list[str]) -> str:
        return choices[int(torch.randint(len(choices), (), generator=rng))]

    return " ".join(
        one_of(list(LINES)).format(**{slot: one_of(words.split()).replace("_", " ") for slot, words in WORDS.items()})
        for _ in range(lines)
    )
