"""SCAn: a class that two means explain far better than one, as few other classes are, holds poison."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from sklearn.cluster import KMeans
from torch import Tensor

from defenses.base import Case, Defense, refit_without, seed_of
from tasks.deployed import Model
from tasks.plugin import Above0, NotApplicable, Positive, options


@options
class Scan(Defense):
    """Splits every class in two under the covariance of clean rows, and drops a part of those that fit two means best.

    Tang, Wang, Tang and Zhang, 2021, arXiv 1908.00686, section 4: a row is its class's mean plus a variation that all
    classes share; both covariances are learnt from clean rows by EM. The likelihood ratio of two means against one,
    over the rows of the class, is a statistic per class, and its distance from the median in scaled median deviations
    an anomaly index. Above e^2 the class is poisoned, and of its two groups goes the one with the smaller share of the
    clean rows. A row's suspicion is its class's index if it is in that group, and 0 otherwise.
    Deviations: features are reduced to the components that vary most over the clean rows, at most one for every
    `rows_per_component` of them, since 200 rows tell no covariance of 64 features; only a class above the median is
    called poisoned, for a class more alike than the others is no attack; the split is k-means in the whitened space
    from ten starts, which is what EM with one shared covariance and a hard assignment does.
    Measured on fashion_mnist, 2,000 rows, badnets, three seeds: it names the target and drops all 20 poisons of 20 and
    299 of 300 of three times 100; the index is 16 to 210 with poison and 3 to 11 without, so e^2 calls one of three
    clean models poisoned, and of two others a clean class as well (100 clean rows each; accuracy .81 to .83 there).
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio", "tabular")
    why_not: ClassVar[str] = "it compares classes with each other"
    stage: ClassVar[str] = "filtering"
    paper: ClassVar[str] = "arXiv 1908.00686"

    clean_rows: Positive = 200  # drawn from the reserve
    components: Positive = 64  # of the features, at most
    rows_per_component: Annotated[int, Field(ge=1)] = 5
    rounds: Positive = 100  # of EM, at most
    outlier: Above0 = 7.389  # e^2, the anomaly index above which a class is called poisoned

    def defend(self, case: Case) -> Model:
        classes = len(case.task.classes)
        if classes < 3:
            raise NotApplicable(f"{case.task.name} has {classes} classes: one that stands out needs at least 3")
        clean, seed = case.clean(self.clean_rows), seed_of(case.rng)
        victim = case.fit(case.train)
        known, features = victim.features(clean).double(), victim.features(case.train).double()
        axes = leading_axes(known, min(self.components, max(1, len(clean) // self.rows_per_component)))
        whitening = whitening_of(within_covariance(known @ axes, clean.targets, self.rounds))
        known, features = known @ axes @ whitening, features @ axes @ whitening
        gain, smaller = torch.zeros(classes), torch.zeros(len(features), dtype=torch.bool)
        for c in range(classes):
            rows = (case.train.targets == c).nonzero().flatten()
            gain[c], group = split(features[rows], known[clean.targets == c], seed)
            smaller[rows[group]] = True
        index = anomaly(gain)
        suspicion = torch.where(smaller, index[case.train.targets], 0).clamp(min=0)
        case.report(model=float(index.max()), target=int(index.argmax()))
        return refit_without(case, suspicion > self.outlier, suspicion)


def leading_axes(x: Tensor, components: int) -> Tensor:
    """(D, at most `components`) directions in which rows (N, D) vary most."""
    _, sizes, right = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    rank = max(1, int((sizes > sizes[0] * max(x.shape) * torch.finfo(sizes.dtype).eps).sum()))
    axes: Tensor = right[: min(components, rank)].T
    return axes


def within_covariance(x: Tensor, targets: Tensor, rounds: int, close: float = 1e-5) -> Tensor:
    """(k, k) covariance of the variation about the class means, of rows (N, k), by EM with that of the means."""
    x = x - x.mean(0)
    labels, place, counts = torch.unique(targets, return_inverse=True, return_counts=True)
    means = torch.stack([x[targets == c].mean(0) for c in labels])
    between, within = means.T @ means / len(means), (x - means[place]).T @ (x - means[place]) / len(x)
    for _ in range(rounds):
        # What is expected of a class's mean: its rows' mean, drawn to zero the more, the fewer rows there are.
        u = torch.stack([between @ torch.linalg.pinv(between + within / n) @ m for n, m in zip(counts, means)])
        e = x - u[place]
        before, between, within = within, u.T @ u / len(u), e.T @ e / len(e)
        if (within - before).norm() <= close * before.norm():
            break
    return within


def whitening_of(covariance: Tensor) -> Tensor:
    """(k, k) root of the pseudo-inverse of a covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    usable = values > values.max().clamp(min=1e-30) * 1e-6
    root: Tensor = vectors * torch.where(usable, values.clamp(min=1e-30).rsqrt(), 0)
    return root


def split(x: Tensor, known: Tensor, seed: int) -> tuple[float, Tensor]:
    """What two means gain over one, per row of a class (N, k), and (N,) bool: the group with fewer of the known rows.

    Twice the log-likelihood ratio under unit covariance. known (M, k): clean rows of the class. Size breaks a tie.
    """
    if len(x) < 2 or (x == x[0]).all():
        return 0.0, torch.zeros(len(x), dtype=torch.bool)
    means = KMeans(2, n_init=10, random_state=seed).fit(x.numpy())
    own = torch.from_numpy(means.labels_).long()
    gain = float((x - x.mean(0)).square().sum() - means.inertia_) / len(x)
    clean = torch.from_numpy(means.predict(known.numpy())).long() if len(known) else own
    shares = clean.bincount(minlength=2) / len(clean), own.bincount(minlength=2) / len(own)
    order = shares[0] if shares[0][0] != shares[0][1] else shares[1]
    return gain, own == order.argmin()


def anomaly(gain: Tensor) -> Tensor:
    """(K,) how many scaled median deviations the gains (K,) lie above their median."""
    away = gain - gain.quantile(0.5)
    return away / (1.4826 * away.abs().quantile(0.5)).clamp(min=1e-12)
