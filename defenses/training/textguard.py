"""TextGuard: models that each read a part of all words vote, so that few words turn few votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import md5
from typing import ClassVar

import torch
from torch import Tensor

from defenses.base import Case, Defense
from tasks.deployed import Ensemble, Model
from tasks.plugin import Positive, options
from tasks.samples import Outputs, Samples


@options
class Textguard(Defense):
    """Splits the words of every text by a hash into groups, trains one model on each group's words, and lets them vote.

    Pei, Jia, Guo, Li and Song, 2024, NDSS, arXiv 2311.11225: a trigger of s distinct words, wherever it
    stands, changes what at most s of the models read, in training and in use. So of a text whose vote is ahead by
    enough, s words put in cannot change the answer. `certified_words`, kept with the record, is the share of the clean
    texts of which that is sure for 0, 1, ... words; it is a matter of the votes alone and asks no labels.
    This certificate counts words, not poisons: a poison's label reaches the models of all groups that its other words
    fall into, as mislabelled rows do (dirty labels are noise there), so no radius in poisons is stated.
    Deviations: a word counts without its case, since victims here read none; words of other groups are left out, where
    the paper masks them for BERT; ties go by an order of the classes that the text decides, as in `partition_ensemble`.
    Measured on ag_news, 4,000 texts, three seeds: it halves the ASR of 100 addsent (.83 to .47), whose five words fall
    into all groups, for 5 points of accuracy; seven groups .56 (seed 0). Of 200 badwords with the one word "cf", which
    win .22 undefended, it makes .26: the word is a larger part of what its group reads, and texts of so few words are
    told apart less well (ASR without poison .065 instead of .044).
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    why_not: ClassVar[str] = "it splits the words of a text"
    stage: ClassVar[str] = "training"
    paper: ClassVar[str] = "arXiv 2311.11225"

    groups: Positive = 3  # models (published: 3 for the certificate, 7 or 9 against attacks)
    clean_rows: Positive = 200  # texts from the reserve, on which the certificate is stated

    def defend(self, case: Case) -> Model:
        parts = range(self.groups)
        models = [_Reader(case.fit(keep_words(case.train, at, self.groups)), at, self.groups) for at in parts]
        clean = case.clean(self.clean_rows)
        radius = certified_words(models, clean, len(case.task.classes))
        case.save("certified_words", torch.stack([(radius >= s).float().mean() for s in range(self.groups // 2 + 1)]))
        return Ensemble(models)


@dataclass
class _Reader:
    """A model that reads the words of one group."""

    model: Model
    group: int
    groups: int

    def predict(self, samples: Samples) -> Outputs:
        return self.model.predict(keep_words(samples, self.group, self.groups))


def group_of(word: str, groups: int) -> int:
    """The group of a word, whatever its case: its MD5 modulo the number of groups."""
    digest = md5(word.lower().encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return int.from_bytes(digest, "big") % groups


def keep_words(samples: Samples, group: int, groups: int) -> Samples:
    """Every text with the words of one group alone, in their order; it may be empty."""
    texts = [str(text).split() for text in samples.inputs]
    return samples.with_inputs([" ".join(w for w in words if group_of(w, groups) == group) for words in texts])


def certified_words(models: Sequence[Model], samples: Samples, classes: int) -> Tensor:
    """(N,) how many distinct words, put into a text anywhere, surely leave the models' vote on it as it is.

    s words take at most s votes from the winner and give them to a rival, and 2s < lead keeps it in front (the paper's
    Theorem 1). A tie is never certified: which class wins it is decided by the text, and words change that.
    """
    answers = torch.stack([model.predict(samples).answers for model in models])
    counts = torch.stack([(answers == c).sum(0) for c in range(classes)], 1)  # (N, K)
    first, second = counts.topk(2).values.unbind(1)
    return ((first - second - 1) // 2).clamp(min=0)
