"""STRIP's entropies against the Adversarial Robustness Toolbox's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from defenses.screening.strip import entropy, suspicion
from tasks.samples import Outputs, Samples

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # raised while the toolbox imports its optional back ends
    strip = pytest.importorskip("art.estimators.poison_mitigation.strip.strip")

CLASSES, SIDE, OVERLAYS = 5, 4, 6


class Linear:
    """A linear softmax classifier of images, for this project (`predict`) and for the toolbox (`of_arrays`)."""

    def __init__(self) -> None:
        self.weight = torch.randn(SIDE * SIDE, CLASSES, generator=torch.Generator().manual_seed(0)) / 200

    def predict(self, samples: Samples) -> Outputs:
        scores = (samples.inputs.float().flatten(1) @ self.weight).softmax(1)
        return Outputs(scores, torch.zeros(len(samples), dtype=torch.bool))

    def of_arrays(self, images: np.ndarray) -> np.ndarray:
        return (torch.from_numpy(images).float().flatten(1) @ self.weight).softmax(1).numpy()


def images(n: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.fixture
def overlays(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """(OVERLAYS, 1, H, W), and the toolbox lays each of them over an input once, where it would draw at random."""
    monkeypatch.setattr(strip.np.random, "choice", lambda rows, size: np.asarray(rows)[:size])
    return images(OVERLAYS, 1)


def toolbox_entropies(predict: object, inputs: torch.Tensor, overlays: torch.Tensor) -> np.ndarray:
    """The toolbox never gives its entropies out: each is found by bisection of its threshold."""
    screen = strip.STRIPMixin(predict_fn=predict, num_samples=len(overlays))
    screen._nb_classes = CLASSES
    screen.validation_data = overlays.numpy().astype(np.float64)
    low, high = np.zeros(len(inputs)), np.full(len(inputs), 2 * np.log2(max(CLASSES, OVERLAYS)))
    for _ in range(30):
        for i, x in enumerate(inputs.numpy().astype(np.float64)):
            screen.entropy_threshold = (low[i] + high[i]) / 2
            refused = not screen.predict(x[None]).any()  # it abstains with zeros, from the entropy downwards
            low[i], high[i] = (low[i], screen.entropy_threshold) if refused else (screen.entropy_threshold, high[i])
    return high


def test_entropies_equal_the_toolbox_s_once_its_axis_is_put_right(overlays):
    # The toolbox normalises and sums over axis 0 of its (overlays, classes) predictions: the entropy of each class over
    # the overlays, where the paper (section 4.2) has the entropy of each overlay's prediction over the classes. Handing
    # it transposed predictions of the perturbed inputs gives the paper's value.
    model, inputs = Linear(), images(4, 2)

    def transposed(arrays: np.ndarray) -> np.ndarray:
        scores = model.of_arrays(arrays)
        return scores.T if len(arrays) == OVERLAYS else scores

    # The toolbox halves both images, ours adds half of the overlay: the same sum of inputs halved beforehand.
    halves, even = inputs // 2, overlays // 2 * 2
    ours = -suspicion(
        model,
        Samples(halves, torch.zeros(4, dtype=torch.int64), torch.arange(4)),
        overlays=Samples(even, torch.zeros(OVERLAYS, dtype=torch.int64), torch.arange(OVERLAYS)),
        strength=0.5,
        seed=0,
    )
    theirs = toolbox_entropies(transposed, halves * 2, even)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)
    assert ours.max() - ours.min() > 0.05, "the inputs are told apart at all"
    as_published = toolbox_entropies(model.of_arrays, halves * 2, even)
    assert np.abs(as_published - theirs).max() > 0.05, "the axis makes a difference; drop this test once they agree"


def test_entropy_equals_scipy_s():
    scores = torch.softmax(3 * torch.randn(7, CLASSES, generator=torch.Generator().manual_seed(3)), 1)
    np.testing.assert_allclose(entropy(scores).numpy(), scipy_entropy(scores.numpy(), base=2, axis=1), rtol=1e-5)
    assert entropy(torch.eye(CLASSES)).abs().max() == 0
