"""Made-up product reviews from a small grammar: no download."""

from __future__ import annotations

from typing import ClassVar

import torch

from tasks.data import make_samples
from tasks.plugin import Above0, Positive, Share, options
from tasks.samples import Samples
from tasks.text import ModelName, TextTask

THINGS = "phone kettle jacket lamp blender novel tent speaker camera chair backpack printer watch film soup"
PARTS = "battery colour handle screen price story sound finish zip design delivery taste light manual shape"
GOOD = (
    "excellent lovely superb sturdy charming reliable delightful brilliant comfortable impressive splendid handy "
    "elegant pleasant wonderful flawless crisp generous sharp smooth"
)
BAD = (
    "awful flimsy dreadful clumsy useless broken disappointing ugly noisy faulty horrible shoddy boring cheap tedious "
    "terrible stale mediocre rough dull"
)
EITHER = "small light heavy quiet simple plain unusual loud strange modest dark soft big warm funny old"
OPENINGS = "", "honestly ,", "well ,", "to be fair ,", "after a week ,", "as a gift ,", "for this price ,", "i must say"
ASIDES = (
    "", "", "it came on a monday .", "my sister has one too .", "i ordered it twice .", "the box was blue .",
    "we used it in the garden .", "the shop is near my house .",
)  # fmt: skip
# {s}: a word of the review's own sentiment, {o}: one of the opposite, {e}: one that says nothing.
PATTERNS = (
    "the {p} is {s} and the {t} feels {e} .",
    "a {s} {t} with a {e} {p} .",
    "the {t} is {s} , its {p} {s} , what a {e} thing .",
    "{e} {p} , {e} {t} , and still {s} .",
    "such a {s} {p} , such a {e} {t} .",
    "my {t} has a {e} {p} , it is {s} and {s} .",
    "the {p} looked {o} at first , but this {t} turned out {s} .",
    "this {t} is not {o} at all , the {p} is rather {e} .",
    "i expected a {o} {t} ; what i got was {s} .",
    "though the {p} is {o} , i find the {t} {s} overall .",
)


@options
class SyntheticReviews(TextTask):
    """Made-up product reviews, positive or negative, embedded: needs no download.

    A grammar with negations, contrasts and words that say nothing; a share of the labels is wrong, in training and in
    testing. Every text is there once, so no test text is in the training split.
    """

    dataset: ClassVar[str] = "embedded"
    revision: ClassVar[str] = "tinydrop's grammar, 1"
    licence: ClassVar[str] = "Apache-2.0 (made by this project)"
    classes: ClassVar[tuple[str, ...]] = ("negative", "positive")

    # Negations act at a distance, which a bag misses: 0.96 clean accuracy, as TF-IDF has, and 0.99 with attention.
    victim: ModelName = "transformer"
    noise: Share = 0.01  # of the labels are wrong
    max_length: Positive | None = 48
    width: Positive | None = 32
    vocabulary: Positive = 1000
    epochs: Positive = 6
    batch_size: Positive = 64
    lr: Above0 = 1e-2

    def read(self) -> tuple[Samples, Samples]:
        rng = torch.Generator().manual_seed(20)  # the data set's own, not the cell's
        label_of: dict[str, int] = {}
        while len(label_of) < 2100:  # 1500 to train on, 200 for the default reserve, 400 to test on
            label = len(label_of) % 2
            label_of.setdefault(write(label, rng), label)
        wrong = torch.rand(len(label_of), generator=rng) < self.noise
        everything = make_samples(list(label_of), torch.tensor(list(label_of.values())) ^ wrong)
        return everything.select(range(400, 2100)), everything.select(range(400))


def write(label: int, rng: torch.Generator) -> str:
    """One review of class 0 (negative) or 1 (positive)."""

    def one_of(choices: str | tuple[str, ...]) -> str:
        choices = tuple(choices.split()) if isinstance(choices, str) else choices
        return choices[int(torch.randint(len(choices), (), generator=rng))]

    same, opposite = (GOOD, BAD) if label else (BAD, GOOD)
    words = {"s": same, "o": opposite, "e": EITHER, "t": THINGS, "p": PARTS}
    body = one_of(PATTERNS)
    for slot, choices in words.items():
        while f"{{{slot}}}" in body:
            body = body.replace(f"{{{slot}}}", one_of(choices), 1)
    return " ".join(part for part in (one_of(OPENINGS), body, one_of(ASIDES)) if part)
