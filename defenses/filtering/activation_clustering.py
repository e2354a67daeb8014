"""Activation Clustering: a class whose penultimate features fall into a large and a small cluster is poisoned."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from sklearn.cluster import KMeans
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
    Independent components of unit variance are the whitened principal ones turned by an orthogonal matrix. That changes
    no distance, and k-means with its random starts reads nothing but distances: it is given the whitened ones, finds
    the same clusters, and nobody iterates to look for the turn.
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
            suspicion[rows] = outside_share(reduce(features[rows], self.dimensions, self.reduction), seed)
        return refit_without(case, suspicion > 1 - self.size, suspicion)


def reduce(features: Tensor, dimensions: int, reduction: str = "ica") -> Tensor:
    """(N, D) features of one class to float32 (N, at most `dimensions`) principal components.

    reduction: "pca" leaves them as wide as they are; "ica" gives each unit variance. The features are returned as they
    are where they have no more columns than that, or where all rows are alike.
    """
    centred = features.double() - features.double().mean(0, keepdim=True)
    if features.shape[1] <= dimensions or not centred.any():
        return features
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    rank = int((sizes > sizes[0] * max(centred.shape) * torch.finfo(sizes.dtype).eps).sum())
    kept = min(dimensions, rank)  # the components beyond the rank have no variance to divide by
    scale = sizes[:kept] if reduction == "pca" else len(features) ** 0.5
    components: Tensor = left[:, :kept] * scale
    return components.float()


def outside_share(reduced: Tensor, seed: int) -> Tensor:
    """(N,) share of the class outside a row's own k-means cluster (k = 2); zeros where all rows are alike."""
    if not len(reduced) or (reduced == reduced[0]).all():
        return torch.zeros(len(reduced))
    own = torch.from_numpy(KMeans(2, n_init=10, random_state=seed).fit_predict(reduced.numpy())).long()
    sizes = own.bincount(minlength=2).float()
    return 1 - sizes[own] / len(reduced)
