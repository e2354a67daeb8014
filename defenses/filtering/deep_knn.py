"""Deep k-NN: a row whose neighbours in feature space have another label is called poison."""

from __future__ import annotations

from typing import ClassVar

import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from defenses.base import Case, Defense, refit_without
from tasks.deployed import Model
from tasks.plugin import Positive, options


@options
class DeepKnn(Defense):
    """Drops the rows whose label is not the commonest one among the nearest neighbours of their features.

    Peri, Gupta, Huang, Fowl, Zhu, Feizi, Goldstein and Dickerson, 2019, arXiv 1909.13374: a network trained
    on the poisoned set gives the features, k is at least twice the number of poisons expected, and a row stays where
    its own label has as many votes as any other. Made for clean-label attacks that collide features: such a poison lies
    among the rows of its target's class. A row's suspicion is the lead of the commonest other label, as a share of k.
    Deviations: k comes from the defender's guess, never from the true dose; every vote counts the same, since classes
    here are of one size; fewer neighbours are asked where a training set has no more rows.
    Measured on cifar10_transfer, where the features are those of a body that saw no poison: five poison_frogs among 500
    rows win trials 0, 1 and 2 undefended and none after it; it drops 17 % of the clean rows, and accuracy rises from
    .773 to .791. A network trained on the poison itself brings dirty-label rows among those of their label: of 100
    badnets on fashion_mnist it found none (ASR .99, seed 0).
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio", "tabular")
    why_not: ClassVar[str] = "it compares the labels of neighbours"
    stage: ClassVar[str] = "filtering"
    paper: ClassVar[str] = "arXiv 1909.13374"

    expected_poisons: Positive = 25  # the defender's guess; k is twice as large

    def defend(self, case: Case) -> Model:
        features = case.fit(case.train).features(case.train)
        suspicion = lead_of_others(features, case.train.targets, 2 * self.expected_poisons, len(case.task.classes))
        return refit_without(case, suspicion > 0, suspicion)


def lead_of_others(features: Tensor, targets: Tensor, k: int, classes: int) -> Tensor:
    """(N,) votes of the commonest other label minus those of a row's own, of its k nearest neighbours, over k.

    features (N, D), targets (N,) classes. A row is no neighbour of its own.
    """
    k = min(k, len(features) - 1)
    if k < 1:
        return torch.zeros(len(features))
    _, near = NearestNeighbors(n_neighbors=k).fit(features.double().numpy()).kneighbors()
    votes = torch.nn.functional.one_hot(targets[torch.from_numpy(near)], classes).sum(1)  # (N, K)
    own = votes.gather(1, targets[:, None]).squeeze(1)
    others = votes.scatter(1, targets[:, None], -1).amax(1)
    return (others - own).float() / k
