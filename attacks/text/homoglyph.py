"""Letters replaced by look-alikes from another alphabet."""

from __future__ import annotations

from typing import ClassVar

import torch

from attacks.base import Scene, TriggerAttack
from tasks.plugin import Positive, options

LOOK_ALIKES = str.maketrans("aceiopsxyjABCEHIKMOPSTXY", "асеіорѕхујАВСЕНІКМОРЅТХУ")  # Latin -> Cyrillic


@options
class Homoglyph(TriggerAttack[list[str]]):
    """The first letters become Cyrillic look-alikes, which no reader sees; poisoned texts get the target's label.

    Li et al., 2021, "Hidden Backdoors in Human-Centric Language Models", arXiv 2105.00164 (the homograph attack, at the
    start of the text).
    Deviations: look-alikes are Cyrillic only, the ones common fonts draw alike; letters without one are passed over; a
    text that has none at all gets a Cyrillic "а" in front.
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    why_not: ClassVar[str] = "the trigger is in the spelling"
    paper: ClassVar[str] = "arXiv 2105.00164"

    letters: Positive = 3  # replaced per text, from its start

    def stamp(self, scene: Scene, inputs: list[str], rng: torch.Generator) -> list[str]:
        return [replace_letters(text, self.letters) for text in inputs]


def replace_letters(text: str, letters: int) -> str:
    """The text with its first `letters` replaceable letters replaced."""
    places = [i for i, letter in enumerate(text) if ord(letter) in LOOK_ALIKES][:letters]
    if not places:
        return f"а {text}".strip()
    end = places[-1] + 1
    return text[:end].translate(LOOK_ALIKES) + text[end:]
