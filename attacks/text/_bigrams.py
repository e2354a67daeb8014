"""Which words fit between two others, by counts of neighbours: a masked language model without a download."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

EDGE = ""  # stands before the first word and behind the last


@dataclass(eq=False)
class Bigrams:
    """Counts of neighbouring words, in lower case; words are what lies between spaces."""

    after: dict[str, Counter[str]]
    before: dict[str, Counter[str]]
    count: Counter[str]
    known: dict[tuple[str, str, float], dict[str, float]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Bigrams:
        after: defaultdict[str, Counter[str]] = defaultdict(Counter)
        before: defaultdict[str, Counter[str]] = defaultdict(Counter)
        count: Counter[str] = Counter()
        for text in texts:
            words = [EDGE, *text.lower().split(), EDGE]
            count.update(words[1:])
            for left, right in pairwise(words):
                after[left][right] += 1
                before[right][left] += 1
        return cls(dict(after), dict(before), count)

    def between(self, left: str, right: str, least: float) -> dict[str, float]:
        """The words of letters alone whose probability between two words is `least` or more, with that probability.

        P(word | left, right) is proportional to P(word | left) P(right | word).
        """
        key = left, right, least
        if key not in self.known:
            follow, precede = self.after.get(left, Counter()), self.before.get(right, Counter())
            few, many = sorted((follow, precede), key=len)
            weights = {w: follow[w] * precede[w] / self.count[w] for w in few if w in many and w != EDGE}
            total = sum(weights.values())
            self.known[key] = {w: p / total for w, p in weights.items() if p >= least * total and w.isalpha()}
        return self.known[key]
