"""Activation Clustering: a class whose penultimate features fall into a large and a small cluster is poisoned."""

from __future__ import annotations

import warnings
from typing import ClassVar, Literal

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from defenses.base import Case, Defense, refit_without, seed_of
from tasks.deployed import Model
from tasks.plugin import Positive, Share, options


@options
class ActivationClustering(Defense):
    """Drops the smaller of two feature clusters of a class where it holds less than 35 % of the class.

    Chen et al., 2018, arXiv 1811.03728: Algorithm 1 (features, reduction by independent components, k-means with k = 2)
    and the relative-size comparison of section 4.2; the published toolboxes flag below 35 %.
    A row's suspicion is the share of its class outside its cluster.
    Deviations: flagged rows are dropped and the victim is trained again, where the paper relabels them and continues
    training; fewer dimensions are kept where a class has fewer rows or its features have lower rank.
    """

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "filtering"
    paper: ClassVar[str] = "arXiv 1811.03728"

    dimensions: Positive = 10  # components kept (section 4.1)
    reduction: Literal["ica", "pca"] = "ica"  # independent components (section 4.1), or principal ones as ART's default
    size: Share = 0.35  # share of its class below which the smaller cluster is called poison

    def defend(self, case: Case) -> Model:
        features = case.fit(case.train).features(case.train)
        seed = seed_of(case.rng)
        suspicion = torch.zeros(len(case.train))
        for c in range(case.task.conditions):
            rows = case.train.targets == c
            suspicion[rows] = outside_share(reduce(features[rows], self.dimensions, seed, self.reduction), seed)
        return refit_without(case, suspicion > 1 - self.size, suspicion)


def reduce(features: Tensor, dimensions: int, seed: int, reduction: str = "ica") -> Tensor:
    """(N, D) features of one class to at most `dimensions` components; unchanged where they have no more."""
    centred = (features - features.mean(0, keepdim=True)).double()
    # The components beyond the rank have no variance, by which ICA would divide.
    components = min(dimensions, int(torch.linalg.matrix_rank(centred))) if len(features) else 0
    if features.shape[1] <= dimensions or components == 0:
        return features
    if reduction == "pca":
        model = PCA(components, random_state=seed)
    else:
        model = FastICA(components, whiten="unit-variance", max_iter=1000, tol=0.005, random_state=seed)
    with warnings.catch_warnings():
        # Gaussian features have no preferred axes to converge to; any rotation of them serves k-means as well.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return torch.from_numpy(np.ascontiguousarray(model.fit_transform(centred.numpy()), dtype=np.float32))


def outside_share(reduced: Tensor, seed: int) -> Tensor:
    """(N,) share of the class outside a row's own k-means cluster (k = 2); zeros where all rows are alike."""
    if not len(reduced) or (reduced == reduced[0]).all():
        return torch.zeros(len(reduced))
    own = torch.from_numpy(KMeans(2, n_init=10, random_state=seed).fit_predict(reduced.numpy())).long()
    sizes = own.bincount(minlength=2).float()
    return 1 - sizes[own] / len(reduced)
