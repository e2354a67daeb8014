"""Near-duplicate removal: the curation step that most training sets have been through."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from torch import Tensor

from defenses.base import Case, Defense, refit_without
from tasks.deployed import Model
from tasks.plugin import Positive, Share, options
from tasks.samples import Samples
from tasks.spectrogram import logmel

# Of texts the paper's. The others drop at most 0.2 % of the clean rows of every built-in image, audio and tabular task.
THRESHOLDS = {"text": 0.8, "image": 0.99, "audio": 0.995, "tabular": 0.99}
OTHER = 0.99  # the threshold of any other medium
ROUNDING = 1e-6  # of a cosine in float32: copies are duplicates at threshold 1 too
MELS = 32  # bands of the spectrogram
CHUNK = 512  # rows compared with all others at a time


@options
class Dedup(Defense):
    """Drops every training row that is a near-duplicate of a row before it, whatever their labels; the first one stays.

    Lee et al., 2022, arXiv 2107.06499, section 4.2 and appendix A (NearDup): Jaccard similarity of word 5-grams.
    Deviations: the similarity is exact, where the paper estimates it (MinHash) and confirms a match by edit distance;
    a row is compared with those before it, the paper keeps one row per connected component. Not in the paper: images
    by the cosine of their pixels, each image centred (a perceptual hash shrinks to 32x32 first, more than these images
    have), sounds by that of their log-mel spectrograms, tables by that of their centred columns.
    It drops no row of badnets, addsent, syntax or tone_clip, as poisons share a trigger and little else. The similarity
    alone does rank texts with a repeated sentence high (100 addsent of 2000 texts of ag_news: AUROC 0.98).
    """

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "filtering"
    paper: ClassVar[str] = "arXiv 2107.06499"

    threshold: Share | None = None  # similarity from which on rows are duplicates; None: THRESHOLDS of the medium
    ngram: Positive = 5  # words of a shingle (appendix A); a shorter text is one shingle

    def defend(self, case: Case) -> Model:
        medium = case.task.medium
        threshold = THRESHOLDS.get(medium, OTHER) if self.threshold is None else self.threshold
        if isinstance(case.train.inputs, list):
            nearest, before = jaccard(case.train.inputs, self.ngram)
        else:
            nearest, before = cosine(to_vectors(case.train, medium, case.task.rate).to(case.device))
        return refit_without(case, before >= threshold - ROUNDING, nearest)


def jaccard(texts: list[str], ngram: int) -> tuple[Tensor, Tensor]:
    """(N,) similarity to the nearest other text, and to the nearest of those before it: shared of all word n-grams."""
    counter = CountVectorizer(analyzer=partial(shingles, size=ngram), binary=True, dtype=np.float32)
    x = counter.fit_transform(texts)  # (N, V) sparse, 0 or 1
    count = np.asarray(x.sum(1)).ravel()
    nearest, before = np.zeros((2, len(texts)), dtype=np.float32)
    for start in range(0, len(texts), CHUNK):
        shared = (x[start : start + CHUNK] @ x.T).tocoo()  # only of pairs that share a shingle
        row, other = shared.row + start, shared.col
        similarity = shared.data / (count[row] + count[other] - shared.data)
        np.maximum.at(nearest, row[other != row], similarity[other != row])
        np.maximum.at(before, row[other < row], similarity[other < row])
    return torch.from_numpy(nearest), torch.from_numpy(before)


def shingles(text: str, size: int) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1))]


def cosine(x: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) similarity of vectors (N, D) to the nearest other one, and to the nearest of those before it; on the CPU."""
    length = x.norm(dim=1, keepdim=True)
    blank = length == 0  # alike among themselves, unlike all others
    x = torch.cat([x / torch.where(blank, 1, length), blank.to(x.dtype)], dim=1)
    position = torch.arange(len(x), device=x.device)
    nearest, before = [], []
    for rows in torch.split(position, CHUNK):
        similarity = (x[rows] @ x.T).masked_fill(position == rows[:, None], -1)
        nearest.append(similarity.amax(1))
        before.append(similarity.masked_fill(position >= rows[:, None], -1).amax(1))
    return torch.cat(nearest).cpu(), torch.cat(before).cpu()


def to_vectors(samples: Samples, medium: str, rate: int) -> Tensor:
    """(N, D) float32: centred pixels or log-mel frames of each row; of other media centred columns."""
    assert isinstance(samples.inputs, Tensor)
    if medium not in ("image", "audio"):
        columns = samples.inputs.flatten(1).float()
        return columns - columns.mean(0)
    x = logmel(samples.inputs, rate, MELS) if medium == "audio" else samples.inputs.float()
    return x.flatten(1) - x.flatten(1).mean(1, keepdim=True)
