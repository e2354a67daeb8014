"""Texts as a medium: their raw format, and how far a poisoned text is from the clean one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tasks.fluency import WordBigrams
from tasks.modality import Modality


class Texts(Modality):
    """A list of N str."""

    medium: ClassVar[str] = "text"
    raw_format: ClassVar[str] = "a list of str"

    def is_raw(self, inputs: Tensor | list[str]) -> bool:
        return isinstance(inputs, list) and all(isinstance(text, str) for text in inputs)

    def show(self, inputs: Tensor | list[str]) -> Tensor | list[str]:
        return inputs

    def fidelity(
        self, clean: Tensor | list[str], poison: Tensor | list[str], reference: Tensor | list[str]
    ) -> dict[str, Tensor]:
        """Without reference texts there is no perplexity ratio."""
        assert isinstance(clean, list)
        assert isinstance(poison, list)
        metrics = {"edit_distance": edit_distance(clean, poison)}
        if isinstance(reference, list) and reference:
            metrics["log_perplexity_ratio"] = log_perplexity_ratio(clean, poison, reference)
        return metrics


def edit_distance(clean: Sequence[str], poison: Sequence[str]) -> Tensor:
    """(N,) word insertions, deletions and replacements, per word of the clean text (the word error rate).

    A text without words counts as one of one word.
    """
    from rapidfuzz.distance import Levenshtein

    pairs = [(before.split(), after.split()) for before, after in zip(clean, poison, strict=True)]
    return torch.tensor([Levenshtein.distance(words, new) / max(1, len(words)) for words, new in pairs])


def log_perplexity_ratio(clean: Sequence[str], poison: Sequence[str], reference: Sequence[str]) -> Tensor:
    """(N,) log of the poisoned text's perplexity over the clean one's, by word bigrams of the reference texts."""
    lm = WordBigrams(reference)
    rates = [[lm.leave_one_out(text.split())[0].rate for text in (c, p)] for c, p in zip(clean, poison, strict=True)]
    return torch.tensor(rates, dtype=torch.float64).diff(dim=1).flatten()
