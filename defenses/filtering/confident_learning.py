"""Confident learning: a row whose label a cross-validated classifier finds unlikely is mislabelled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from defenses.base import Case, Defense, refit_without
from tasks.deployed import Model
from tasks.plugin import BadInput, NotApplicable, options
from tasks.samples import Samples, take
from tasks.spectrogram import logmel

FOLDS = 5
MELS = 32  # bands of the spectrogram
COMPONENTS = 32  # principal ones of pixels, log-mel frames or columns
FILTERS = Literal["prune_by_noise_rate", "prune_by_class", "both", "confident_learning"]


@options
class ConfidentLearning(Defense):
    """Drops the rows that look mislabelled to a classifier that was not trained on them (cleanlab).

    Northcutt, Jiang and Chuang, 2021, arXiv 1911.00068, section 3: the joint distribution of given and true labels is
    estimated from out-of-sample probabilities, here of 5-fold cross-validation, and as many rows are pruned as it says.
    Suspicion is 1 - the probability of the given label.
    Deviations: the classes are not reweighted after pruning. `classifier=logistic` is a cheap substitute for the five
    trainings: a logistic regression on TF-IDF words, or on principal components of pixels, log-mel frames or columns.
    It sees few dirty-label poisons well (5 badnets of 2000 images of fashion_mnist: AUROC 1.00), and none once they are
    enough for the cross-validated classifiers to learn the trigger too (50: AUROC 0.15). The substitute costs less than
    a tenth; of few poisons it sees about as many in images and hardly any in sounds.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio", "tabular")
    stage: ClassVar[str] = "filtering"
    needs: ClassVar[tuple[str, ...]] = ("cleanlab",)
    paper: ClassVar[str] = "arXiv 1911.00068"

    classifier: Literal["victim", "logistic"] = "victim"  # whose out-of-sample probabilities
    filter_by: FILTERS = "prune_by_noise_rate"  # section 3.2; the default of cleanlab

    def defend(self, case: Case) -> Model:
        find_label_issues, get_label_quality_scores = _cleanlab()
        labels, probabilities = case.train.targets.numpy(), self.out_of_sample(case).numpy()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "May not flag all label issues")  # of classes of one row or none
            flagged = find_label_issues(labels, probabilities, filter_by=self.filter_by, n_jobs=1)  # no processes
        suspicion = 1 - get_label_quality_scores(labels, probabilities, method="self_confidence")
        return refit_without(case, torch.from_numpy(flagged), torch.from_numpy(suspicion))

    def out_of_sample(self, case: Case) -> Tensor:
        """(N, K) float64 class probabilities of every training row, by a classifier that has not seen it."""
        train, fold = case.train, assign_folds(case.train.targets, case.rng)
        out = torch.zeros(len(train), len(case.task.classes), dtype=torch.float64)
        inputs = None if self.classifier == "victim" else to_vectors(train, case.task.modality, case.task.rate)
        for k in sorted(set(fold.tolist())):
            inside, outside = (fold != k).nonzero().flatten(), (fold == k).nonzero().flatten()
            if inputs is None:
                out[outside] = case.fit(train.select(inside)).predict(train.select(outside)).scores.double()
            else:
                probabilities, classes = predict_logistic(
                    take(inputs, inside), train.targets[inside], take(inputs, outside)
                )
                out[outside[:, None], classes] = probabilities
        return out


def _cleanlab() -> tuple[Callable[..., Any], Callable[..., Any]]:
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        raise BadInput('confident_learning needs the package cleanlab: pip install "tinydrop[curation]"') from None
    return find_label_issues, get_label_quality_scores


def assign_folds(targets: Tensor, rng: torch.Generator, k: int = FOLDS) -> Tensor:
    """(N,) the fold of each row; every class is spread evenly. NotApplicable where too few rows are left to learn."""
    if (targets.bincount() > 1).sum() < 2:
        raise NotApplicable("confident_learning: cross-validation needs two classes of two rows or more")
    order = torch.randperm(len(targets), generator=rng)
    out = torch.zeros(len(targets), dtype=torch.long)
    for c in sorted(set(targets.tolist())):
        rows = order[targets[order] == c]
        out[rows] = torch.arange(len(rows)) % k
    return out


def to_vectors(samples: Samples, modality: str, rate: int) -> Tensor | list[str]:
    """(N, D) float32 pixels, log-mel frames or columns; texts as they are."""
    if isinstance(samples.inputs, list):
        return samples.inputs
    return (logmel(samples.inputs, rate, MELS) if modality == "audio" else samples.inputs).flatten(1).float()


def predict_logistic(x: Tensor | list[str], y: Tensor, unseen: Tensor | list[str]) -> tuple[Tensor, Tensor]:
    """(M, C) float64 probabilities of the unseen rows, and the C classes that y has."""
    steps = [TfidfVectorizer(sublinear_tf=True)] if isinstance(x, list) else [make_pca(x), StandardScaler()]
    pipeline = make_pipeline(*steps, LogisticRegression(max_iter=200))
    with warnings.catch_warnings():  # a ranking needs no exact optimum
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(x, y.numpy())
    return torch.from_numpy(pipeline.predict_proba(unseen)).double(), torch.from_numpy(pipeline[-1].classes_)


def make_pca(x: Tensor) -> PCA:
    return PCA(min(COMPONENTS, *x.shape), svd_solver="covariance_eigh")  # this solver draws nothing at random
