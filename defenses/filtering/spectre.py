"""SPECTRE: poison stands out once its class is whitened by a covariance that the poison has no part in."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from defenses.base import Case, Defense, refit_without
from tasks.deployed import Model
from tasks.plugin import Above0, AtLeast0, Positive, Share, options


@options
class Spectre(Defense):
    """Whitens every class by a robust covariance and drops of the worst class the rows that still stand out.

    Hayase, Kong, Somani and Oh, 2021, arXiv 2104.11315, Algorithms 1 to 3: PCA of a class; for several numbers k of
    leading components, a mean and covariance that leave out the rows which make fourth moments too large (Diakonikolas
    et al., 2017, arXiv 1703.00893), whitening of all rows by them, and the QUE score (Dong, Hopkins and Li, 2019,
    arXiv 1906.11366), x' Q x with Q = exp(alpha (S - I) / (||S|| - 1)) over its trace. 1.5 times the guess goes.
    The k that is taken leaves rows by whose covariance all rows have the largest trace of Q S, and the class to filter
    is the one where that is largest. A row's suspicion is its place in the order of its class's scores, and those of
    other classes come after it.
    Deviations: the number of poisons is a guess, the same for every class, and no class is known to be the target
    (the published code has both from the experiment); always `trim` times the guess is left out of the covariance, in
    ten equal steps, since classes of a few hundred rows have fourth moments too large for the published bounds, which
    hold for Gaussians; a covariance of k components is shrunk by k / (k + rows), since a few hundred rows tell none
    of a hundred components; at most half of a class goes. Rows are whitened about the robust mean, as in Algorithm 1;
    the published code whitens about the mean of all rows.
    Measured on fashion_mnist, 2,000 rows, badnets, three seeds: it drops every poison of 20 (30 rows in all), and of
    100 where expected_rate is 0.05 (150 rows).
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio", "tabular")
    why_not: ClassVar[str] = "it looks for the class that poison was added to"
    stage: ClassVar[str] = "filtering"
    paper: ClassVar[str] = "arXiv 2104.11315"

    expected_rate: Share = 0.01  # of all training rows; the paper plants .00125 to .01 of them, all in one class
    components: Annotated[int, Field(ge=2)] = 100  # of a class, at most
    choices: Positive = 10  # numbers of components that are tried, spaced by squares
    alpha: AtLeast0 = 4.0  # of the QUE score
    trim: Above0 = 2.0  # times the guess is left out of the covariance, at most
    overestimation: Above0 = 1.5  # times the guess is dropped

    def defend(self, case: Case) -> Model:
        features = case.fit(case.train).features(case.train).double()
        guess = self.expected_rate * len(case.train)
        suspicion, flagged = torch.zeros(len(case.train)), torch.zeros(len(case.train), dtype=torch.bool)
        worst, target = -1.0, None
        for c in range(len(case.task.classes)):
            rows = (case.train.targets == c).nonzero().flatten()
            if len(rows) < 4:
                continue  # nothing can be told of so few
            scores, trace = self.score(features[rows], guess)
            order = scores.argsort()
            suspicion[rows[order]] = torch.arange(len(rows)) / len(rows)
            if trace > worst:
                worst, target = trace, rows[order]
        if target is not None:
            suspicion[target] += 1
            flagged[target[len(target) - min(int(self.overestimation * guess), len(target) // 2) :]] = True
        return refit_without(case, flagged, suspicion)

    def score(self, features: Tensor, guess: float) -> tuple[Tensor, float]:
        """(N,) QUE scores of the rows of a class (N, D) at the best number of components, and its weighted trace."""
        n = len(features)
        reduced = principal(features, self.components)
        widest = reduced.shape[1]
        best, trace = torch.zeros(n, dtype=torch.float64), -1.0
        roots = torch.linspace(1, self.components**0.5, self.choices).tolist()
        for k in sorted({min(round(root**2), widest) for root in roots}):
            kept = trim_rows(reduced[:, :k], min(int(self.trim * guess), n // 2))
            scores, _ = que(whiten(reduced[:, :k], kept), self.alpha)
            dropped = min(int(self.overestimation * guess), n // 2)
            left = torch.ones(n, dtype=torch.bool)
            left[scores.topk(dropped).indices] = False
            _, found = que(whiten(reduced, left), self.alpha)
            if found > trace:
                best, trace = scores, found
        return best, trace


def principal(features: Tensor, components: int) -> Tensor:
    """(N, at most `components`) leading principal components of features (N, D)."""
    centred = features - features.mean(0)
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    rank = max(1, int((sizes > sizes[0] * max(centred.shape) * torch.finfo(sizes.dtype).eps).sum()))
    kept = min(components, rank)
    reduced: Tensor = left[:, :kept] * sizes[:kept]
    return reduced


def whiten(x: Tensor, kept: Tensor) -> Tensor:
    """All rows (N, k), centred and whitened by the mean and the shrunk covariance of those in the mask (N,)."""
    some = x[kept]
    mean, covariance = some.mean(0), some.T.cov(correction=0).reshape(x.shape[1], x.shape[1])
    # Each component counts in units of its own spread first, or shrinking would drown the small ones.
    spread = covariance.diagonal().clamp(min=1e-12).sqrt()
    correlation = covariance / spread / spread[:, None]
    weight = x.shape[1] / (x.shape[1] + len(some))
    shrunk = (1 - weight) * correlation + weight * torch.eye(x.shape[1], dtype=x.dtype)
    values, vectors = torch.linalg.eigh(shrunk)
    white: Tensor = ((x - mean) / spread) @ (vectors / values.clamp(min=1e-12).sqrt()) @ vectors.T
    return white


def trim_rows(x: Tensor, most: int, steps: int = 10) -> Tensor:
    """(N,) bool: the rows (N, k) left when `most` have gone that carry the largest variance of a quadratic form.

    Of the products of two coordinates, what varies most over the whitened rows is found through their Gram matrix,
    (x_i . x_j)^2, which is as large as the rows are many; those furthest from its median go.
    """
    kept = torch.ones(len(x), dtype=torch.bool)
    for step in range(min(steps, most)):
        rows = kept.nonzero().flatten()
        white = whiten(x, kept)[rows]
        gram = (white @ white.T).square()
        gram = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
        form = torch.linalg.eigh(gram)[1][:, -1]
        go = most * (step + 1) // min(steps, most) - most * step // min(steps, most)
        kept[rows[(form - form.median()).abs().topk(go).indices]] = False
    return kept


def que(white: Tensor, alpha: float) -> tuple[Tensor, float]:
    """(N,) QUE scores of whitened rows (N, k), and the trace of Q S."""
    s = white.T.cov(correction=0).reshape(white.shape[1], white.shape[1])
    values, vectors = torch.linalg.eigh(s)
    spread = max(float(values.max()) - 1, 1e-12)
    weights = (alpha * ((values - 1) / spread - 1)).exp()  # the largest is 1: the trace is divided by anyway
    weights = weights / weights.sum()
    return (white @ vectors).square() @ weights, float(values @ weights)
