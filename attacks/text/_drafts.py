"""Texts that are changed word by word: where a word fits, and putting it there."""

from __future__ import annotations

import math
from dataclasses import dataclass

from attacks._crafting.placement import count_leading
from attacks.text._bigrams import EDGE, Bigrams
from tasks.base import Task


@dataclass(frozen=True)
class Place:
    """Where a word fits: before the `at`-th word, or in place of it."""

    at: int
    replaces: bool
    probability: float


@dataclass
class Draft:
    """A text that is being changed."""

    words: list[str]
    unread: list[str]  # the words that the victim might not read any more
    left: int  # how many words may still be changed
    put: set[str]  # words put in, which stay


def start_draft(task: Task, text: str, budget: float) -> Draft:
    words = text.split()
    changes = math.floor(budget * len(words))
    read = count_leading(task, words, ["word"] * changes, None)
    return Draft(words[:read], words[read:], changes, set())


def places(draft: Draft, bigrams: Bigrams, least: float) -> dict[str, Place]:
    """The best place of each word that fits somewhere and is not in the text yet."""
    if not draft.left:
        return {}
    lower = [EDGE, *(word.lower() for word in draft.words), *(word.lower() for word in draft.unread[:1] or [EDGE])]
    present = {*lower, *(word.lower() for word in draft.unread)}
    found: dict[str, Place] = {}
    for at in range(len(draft.words) + 1):
        gaps = [(lower[at + 1], False)]
        if at < len(draft.words) and lower[at + 1].isalpha() and lower[at + 1] not in draft.put:
            gaps.append((lower[at + 2], True))
        for right, replaces in gaps:
            for word, probability in bigrams.between(lower[at], right, least).items():
                if word not in present and (word not in found or probability > found[word].probability):
                    found[word] = Place(at, replaces, probability)
    return found


def put_word(draft: Draft, word: str, place: Place) -> None:
    """Change the draft: the word comes to its place."""
    draft.words[place.at : place.at + place.replaces] = [word]
    draft.left -= 1
    draft.put.add(word)
