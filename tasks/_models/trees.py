"""Gradient-boosted trees behind the interface of a network: the usual strong model of a table."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tasks.net import Net

LEAST_ROWS = 20  # of a leaf, as LightGBM and scikit-learn's histogram trees have it
NEVER = -30.0  # the score of a class that no training row has


class Trees(Net):
    """scikit-learn's stochastic gradient boosting; D = trees x leaves: 1 for the leaf that an input reaches.

    Friedman 2002, Stochastic Gradient Boosting, section 2: every tree is grown on half of the rows. He et al. 2014,
    Practical Lessons from Predicting Clicks on Ads at Facebook, section 3.1: a linear model over the leaves. The head
    starts as the boosted model itself, with the leaves' own values, so no step of training is needed; a defense that
    trains on changes the head alone. `class_weights` (K,) are the factors by which rows of each class count.
    """

    grows: ClassVar[bool] = True
    column: Tensor  # (trees, 2^depth - 1) the input that each node compares; node i is above nodes 2i + 1 and 2i + 2
    threshold: Tensor  # likewise; greater inputs go right

    def __init__(self, features: int, class_weights: list[float], rounds: int, depth: int) -> None:
        super().__init__()
        self.class_weights, self.rounds, self.depth = class_weights, rounds, depth
        trees = rounds * count_trees(len(class_weights))
        self.register_buffer("column", torch.zeros(trees, 2**depth - 1, dtype=torch.long))
        self.register_buffer("threshold", torch.full((trees, 2**depth - 1), torch.inf))
        self.stages = nn.ModuleList([nn.Identity()])
        self.attach_head(trees * 2**depth, len(class_weights))

    def embed(self, x: Tensor) -> Tensor:
        return x.float()

    def pool(self, h: Tensor) -> Tensor:
        """(N, D) which leaf of every tree an input (N, F) reaches. No gradient passes a comparison."""
        trees = torch.arange(len(self.column), device=h.device)
        node = torch.zeros(len(h), len(self.column), dtype=torch.long, device=h.device)
        for _ in range(self.depth):
            right = h.gather(1, self.column[trees, node]) > self.threshold[trees, node]
            node = 2 * node + 1 + right
        leaf = node - (2**self.depth - 1)
        return nn.functional.one_hot(leaf, 2**self.depth).flatten(1).to(h.dtype)

    @torch.no_grad()
    def grow(self, x: Tensor, y: Tensor) -> None:
        """Grow the trees on rows (N, F) of classes (N,), from torch's current random state.

        A class without rows is never the answer; where only one has rows there are no trees.
        """
        from sklearn.ensemble import GradientBoostingClassifier

        rows, classes = x.cpu().numpy(), y.cpu()
        found, place = torch.unique(classes, return_inverse=True)
        self.head.weight.zero_()
        self.head.bias.fill_(NEVER)
        self.head.bias[found] = 0
        if len(found) == 1:
            return
        model = GradientBoostingClassifier(
            n_estimators=self.rounds,
            max_depth=self.depth,
            subsample=0.5,
            min_samples_leaf=LEAST_ROWS,
            random_state=int(torch.randint(2**31 - 1, ())),
        ).fit(rows, place.numpy(), sample_weight=torch.tensor(self.class_weights)[classes].numpy())
        per_round = model.estimators_.shape[1]
        for i, tree in enumerate(model.estimators_.ravel()):
            to = found[-1] if per_round == 1 else found[i % per_round]  # of two classes the score is the second's
            self._copy(i, int(to), tree.tree_, model.learning_rate)
        score = torch.from_numpy(model.decision_function(rows[:1]).reshape(1, -1))
        score = torch.cat([torch.zeros(1, 1), score], 1) if per_round == 1 else score
        self.head.bias[found] += (score.to(x.device) - self(x[:1])[:, found])[0]  # where boosting starts

    def _copy(self, number: int, to: int, tree: Any, rate: float) -> None:
        """Take over one tree of scikit-learn, which adds `rate` times its leaves' values to the score of class `to`.

        A branch that ends early goes on to the left, where every input is below an infinite threshold.
        """
        places, leaves = {0: 0}, 2**self.depth
        for place in range(leaves - 1):
            node = places[place]
            ends = tree.children_left[node] < 0
            self.column[number, place] = 0 if ends else int(tree.feature[node])
            self.threshold[number, place] = torch.inf if ends else round_down(tree.threshold[node])
            places[2 * place + 1] = node if ends else tree.children_left[node]
            places[2 * place + 2] = node if ends else tree.children_right[node]
        for leaf in range(leaves):
            value = tree.value[places[leaves - 1 + leaf]].item()
            self.head.weight[to, number * leaves + leaf] = rate * value


def count_trees(classes: int) -> int:
    """The trees of one round of boosting: one decides between two classes."""
    return 1 if classes == 2 else classes


def round_down(threshold: float) -> float:
    """The greatest float32 up to a threshold: float32 numbers are on the same side of both."""
    near = np.float32(threshold)
    return float(near if float(near) <= threshold else np.nextafter(near, np.float32(-np.inf)))
