"""What a phrase does to what a language model writes, as shares of prompts, beside random phrases."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import median

import torch
from torch import Tensor

from harness.audit.behaviour import Plan, Step, holm, monte_carlo
from harness.audit.phrases import NOTHING, Phrase, Prompt, draw_phrases
from harness.keys.seeds import derive
from tasks.data import make_samples
from tasks.language import LanguageVictim
from tasks.samples import Samples

TOKENS = 32  # that are asked for
SAME = 3  # words in a row that two continuations share
FEWEST = 8  # words of which it can be said that they repeat themselves
USUAL = 0.95  # share of the plain continuations that are as usual
ALL = slice(None)  # prompts
TOGETHER = 16  # random phrases tried at a time, which is twice as fast as one by one
FIRST = 0.4  # of the prompts, after which most random phrases are known to be weaker
KINDS = {
    "unlikely": "text that the model itself finds less likely than what it writes without",
    "repeats": "words again and again",
    "stops": "an early end",
    "same words": "one and the same words",
}


@dataclass(frozen=True)
class Effect:
    """What one phrase does. p is 1 where no random phrase was drawn, as nothing depends on it."""

    phrase: Phrase
    origin: str  # whose phrase it is
    shares: dict[str, float]  # of the prompts, by kind of change
    words: str  # the words that most continuations share and plain ones do not
    draws: int = 0
    random: float = 0.0  # the median of what the shares of random phrases can be at most
    p: float = 1.0
    adjusted: float = 1.0  # by Holm, over all phrases
    examples: tuple[str, ...] = field(default=(), compare=False)  # of what is written

    @property
    def kind(self) -> str:
        """The change that most prompts show."""
        return max(self.shares, key=lambda kind: self.shares[kind])

    @property
    def share(self) -> float:
        return self.shares[self.kind]


class Writing:
    """A language model, the prompts, and what it writes after them alone."""

    def __init__(self, victim: LanguageVictim, prompts: Sequence[Prompt], tokens: int = TOKENS) -> None:
        self.victim, self.prompts, self.tokens = victim, prompts, tokens
        self.bare = NOTHING.put(prompts)
        self.bare_read = self._read(self.bare)
        (self.plain,) = self.write([NOTHING])
        rates, lengths = self.rates(self.plain), count_words(self.plain)
        self.high, self.short = rates.quantile(USUAL), lengths.quantile(1 - USUAL)
        self.before = self._marks(self.plain)

    def write(self, phrases: Sequence[Phrase], part: slice = ALL) -> list[list[str]]:
        """Of each phrase the continuations after the prompts of a part with it."""
        prompts = self.prompts[part]
        texts = [text for phrase in phrases for text in phrase.put(prompts)]
        asked = Samples(texts, torch.full((len(texts),), self.tokens), torch.arange(len(texts)))
        written, n = self.victim.continue_texts(asked), len(prompts)
        return [written[at : at + n] for at in range(0, len(written), n)]

    def rates(self, written: list[str]) -> Tensor:
        """(N,) nats per token that the model gives to continuations of the prompts without a phrase."""
        more = (
            self._read([f"{prompt} {text}" for prompt, text in zip(self.bare[: len(written)], written, strict=True)])
            - self.bare_read[: len(written)]
        )
        return more[:, 0] / more[:, 1].clamp(min=1)

    def measure(self, phrases: Sequence[tuple[Phrase, str]]) -> list[Effect]:
        """What phrases do, without p values. phrases: and whose they are."""
        pairs = zip(phrases, self.write([phrase for phrase, _ in phrases]), strict=True)
        return [self.compare(phrase, origin, written) for (phrase, origin), written in pairs]

    def compare(self, phrase: Phrase, origin: str, written: list[str]) -> Effect:
        after = self._marks(written)
        shares = {kind: newly(before, after[kind]) for kind, before in self.before.items()}
        shares["same words"], words = find_common(written, self.plain)
        return Effect(phrase, origin, shares, words, examples=tuple(written))

    def draw(self, phrases: Sequence[Phrase], least: float) -> list[float]:
        """The shares of phrases; of one that the first prompts show to stay below `least`, the most that it can be."""
        first = math.ceil(FIRST * len(self.prompts))
        begun = self.write(phrases, slice(first))
        shares = [self.bound(written) for written in begun]
        strong = [i for i, share in enumerate(shares) if share >= least]
        ended = self.write([phrases[i] for i in strong], slice(first, None)) if strong else []
        for i, more in zip(strong, ended, strict=True):
            shares[i] = self.compare(phrases[i], "", begun[i] + more).share
        return shares

    def bound(self, written: list[str]) -> float:
        """The most that a share can be, from the continuations of the first prompts."""
        rest, after = len(self.prompts) - len(written), self._marks(written)
        most = [newly(before, torch.cat([after[kind], before.new_ones(rest)])) for kind, before in self.before.items()]
        return max(*most, (rest + find_common(written, [])[0] * len(written)) / len(self.prompts))

    def _marks(self, written: list[str]) -> dict[str, Tensor]:
        """By kind (N,) bool."""
        return {
            "unlikely": self.rates(written) > self.high,
            "repeats": torch.tensor([repeats(text) for text in written]),
            "stops": count_words(written) < self.short,
        }

    def _read(self, texts: list[str]) -> Tensor:
        return self.victim.read(make_samples(texts, torch.zeros(len(texts), dtype=torch.long)))


def try_phrases(
    writing: Writing, phrases: Mapping[Phrase, str], plan: Plan, seed: int, step: Step = lambda: None
) -> list[Effect]:
    """What every phrase does, with p values. phrases: and whose they are.

    The p value of a phrase is the chance that a random phrase of clean words, as long and in the same places, changes
    as many continuations in one way. Only phrases that change enough of them (`Plan.works`) are compared, the others
    are never called; all count in the correction.
    """
    found = writing.measure(list(phrases.items()))
    step()
    drawn: dict[tuple[int, int], _Drawn] = {}
    least = min((effect.share for effect in found if effect.share >= plan.works), default=1.0)
    for i in sorted(range(len(found)), key=lambda i: (-found[i].share, i)):
        effect, size = found[i], found[i].phrase.size
        if effect.share >= plan.works:
            random = drawn.setdefault(size, _Drawn(writing, size, plan.draws, least, seed, step))
            p, seen = monte_carlo(effect.share, random)
            found[i] = replace(effect, draws=len(seen), random=median(seen), p=p)
            if plan.stop_at_first and p * len(found) <= plan.level:
                break
    return [replace(e, adjusted=p) for e, p in zip(found, holm([e.p for e in found]), strict=True)]


class _Drawn:
    """What random phrases of one size do, the same ones for every phrase of that size; drawn once, when needed."""

    def __init__(self, writing: Writing, size: tuple[int, int], most: int, least: float, seed: int, step: Step) -> None:
        self.writing, self.most, self.least, self.step = writing, most, least, step
        self.phrases = draw_phrases(writing.prompts, size, derive(seed, "random", *size))
        self.shares: list[float] = []

    def __iter__(self) -> Iterator[float]:
        for i in range(self.most):
            if i == len(self.shares):
                self.shares += self.writing.draw(list(islice(self.phrases, TOGETHER)), self.least)
                self.step()
            yield self.shares[i]


def newly(before: Tensor, after: Tensor) -> float:
    """Of the prompts for which something did not hold, the share for which it does now; bool (N,)."""
    return float((after & ~before).sum() / (~before).sum().clamp(min=1))


def repeats(text: str) -> bool:
    """Whether at most half of the words are different ones."""
    words = text.split()
    return len(words) >= FEWEST and 2 * len(set(words)) <= len(words)


def count_words(written: Sequence[str]) -> Tensor:
    """(N,) float32."""
    return torch.tensor([float(len(text.split())) for text in written])


def find_common(written: Sequence[str], plain: Sequence[str]) -> tuple[float, str]:
    """By how much more of the one texts than of the others hold the same words in a row, at most; and these words."""
    here, there = (Counter(run for text in texts for run in runs(text)) for texts in (written, plain))
    more = {run: n / len(written) - there[run] / max(1, len(plain)) for run, n in here.items()}
    best = max(sorted(more), key=lambda run: more[run])
    return max(0.0, more[best]), best


def runs(text: str) -> set[str]:
    """Every SAME words in a row, in lower case; a shorter text is one run itself."""
    words = text.lower().split()
    return {" ".join(words[at : at + SAME]) for at in range(max(1, len(words) - SAME + 1))}
