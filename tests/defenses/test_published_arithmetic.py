"""Defenses against libraries, and against the authors' code written again in other words: same input, same numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from comparison import CLASSES, Fixed, digits, waves
from helpers import tiny
from scipy.linalg import expm, fractional_matrix_power
from scipy.stats import spearmanr
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from defenses._batch_norm import find_batch_norms
from defenses.filtering.deep_knn import lead_of_others
from defenses.filtering.spectre import Spectre, principal, trim_rows
from defenses.repair import anp
from defenses.repair._masks import draw_batches
from defenses.repair.anp import Anp
from defenses.repair.clp import lipschitz_bounds
from defenses.repair.ft_sam import FtSam
from defenses.repair.quantised import round_weights
from defenses.screening.beatrix import deviation, gram_of
from defenses.screening.scale_up import consistency
from harness.testing.checks import CPU
from tasks._models.cnn import CNN
from tasks.base import Batch
from tasks.deployed import Victim
from tasks.samples import Outputs, Samples


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def net() -> Fixed:
    return Fixed().eval()


# Filtering


@pytest.mark.parametrize("k", [5, 20])
def test_deep_knn_counts_the_votes_of_scikit_learn_s_classifier_without_the_row(net: Fixed, k: int) -> None:
    x, y = digits(150)
    y = torch.where(torch.arange(150) % 15 == 0, (y + 3) % CLASSES, y)  # some rows with a wrong label
    features = net.features(x).detach()
    ours = lead_of_others(features, y, k, CLASSES)
    for row in range(len(x)):
        rest = torch.arange(150) != row
        classifier = KNeighborsClassifier(k).fit(features[rest].double().numpy(), y[rest].numpy())
        votes = dict(zip(classifier.classes_, classifier.predict_proba(features[row : row + 1].double().numpy())[0]))
        own = votes.pop(int(y[row]), 0.0)
        assert ours[row].item() == pytest.approx(max(votes.values()) - own, abs=1e-6)
    assert 10 <= int((ours > 0).sum()) < 40, "most of the ten wrong labels, and a few others"


def julia_scores(reduced: np.ndarray, selected: np.ndarray, centred: bool = True) -> tuple[np.ndarray, float]:
    """QUE scores of rows (N, k) and the trace, as quantum_filters.jl of the authors has them (transposed).

    centred: by the mean of the selected rows, as Algorithm 1 of the paper; their code leaves the mean of all at zero.
    """
    reduced = reduced - reduced[selected].mean(0) if centred else reduced
    if reduced.shape[1] == 1:  # they do not whiten a single component
        return reduced[:, 0] ** 2, float(reduced.var(ddof=1))
    root = fractional_matrix_power(np.cov(reduced[selected].T, bias=True), -0.5)
    white = reduced @ root.T
    spread = np.cov(white.T)
    m = expm(4.0 * (spread - np.eye(len(spread))) / (np.linalg.norm(spread, 2) - 1))
    m /= np.trace(m)
    return np.array([x @ m @ x for x in white]), float(np.trace(spread @ m))


def test_spectre_drops_the_rows_that_the_authors_formulas_drop() -> None:
    """29 of the same 30 rows of 400, the poison among them, from the same robust sets of rows.

    They whiten by the plain covariance; ours is shrunk, which for few rows and many components it has to be, and two
    rows at the edge change places. The number of components is chosen as they choose it. Their code whitens about the
    mean of all rows, poison included, where the paper has the robust one: that costs more of the order than shrinking.
    """
    spread = torch.tensor([20.0, 15, 10, 3, 2, 1, 1, 1, 1, 1, 1, 1])
    x = torch.randn(400, 12, generator=rng(), dtype=torch.float64) * spread
    x[380:, 10] += 5
    reduced, guess, best, wanted = principal(x, 100), 20, -1.0, np.zeros(400)
    for k in (1, 4, 9, 12):
        kept = trim_rows(reduced[:, :k], 2 * guess)
        scores, _ = julia_scores(reduced[:, :k].numpy(), kept.numpy())
        left = np.ones(400, dtype=bool)
        left[scores.argsort()[-30:]] = False
        _, trace = julia_scores(reduced.numpy(), left)
        if trace > best:
            best, wanted = trace, scores
            about_all, _ = julia_scores(reduced[:, :k].numpy(), kept.numpy(), centred=False)
    found, found_trace = Spectre().score(x, guess)
    ours, theirs = set(found.topk(30).indices.tolist()), set(wanted.argsort()[-30:].tolist())
    assert len(ours & theirs) >= 29
    assert spearmanr(found.numpy(), wanted).statistic > 0.99 > spearmanr(found.numpy(), about_all).statistic > 0.9
    assert found_trace == pytest.approx(best, rel=0.1)
    assert len({row for row in ours & theirs if row >= 380}) >= 18, "and they are the poison"


# Screening


def test_beatrix_deviation_is_the_authors_up_to_one_factor() -> None:
    """They divide the sum over whole matrices, lower half zero, by C^2 / 2; ours is a mean of C (C + 1) / 2 entries."""
    c, orders = 6, 8
    maps = torch.rand(40, c, 9, generator=rng()) + 0.1  # as after a ReLU, so that no bound is next to zero
    maps[31:, 2] *= 3

    def grams(rows: np.ndarray, p: int) -> np.ndarray:
        product = np.triu(np.stack([f**p @ (f**p).T for f in rows]))
        return (np.sign(product) * np.abs(product) ** (1 / p)).reshape(len(rows), -1)

    theirs = np.zeros(9)
    for p in range(1, orders + 1):
        known, asked = (grams(part.double().numpy(), p) for part in (maps[:31], maps[31:]))
        middle = np.median(known, 0)
        mad = np.median(np.abs(known - middle), 0)
        low, high = middle - 10 * mad, middle + 10 * mad
        theirs += (np.maximum(low - asked, 0) / np.abs(low + 1e-6)).sum(1)
        theirs += (np.maximum(asked - high, 0) / np.abs(high + 1e-6)).sum(1)
    theirs /= c * c / 2 * orders
    known, asked = gram_of(maps[:31], orders), gram_of(maps[31:], orders)
    middle = known.median(0).values
    spread = 10 * (known - middle).abs().median(0).values
    ours = deviation(asked, (middle - spread).expand_as(asked), (middle + spread).expand_as(asked))
    assert ours.min() > 0
    np.testing.assert_allclose(ours.numpy() * (c + 1) / c, theirs, rtol=1e-3)


def test_scale_up_counts_as_the_authors_and_backdoorbox_do(net: Fixed) -> None:
    """The authors count the input itself among its copies, 1 for every input; BackdoorBox does not."""
    x, y = digits(60)
    x = x / 6  # dark enough for copies to differ
    pictures = Samples(x.to(torch.uint8), y, torch.arange(60))

    class Deployed:
        def predict(self, samples: Samples) -> Outputs:
            with torch.no_grad():
                return Outputs(net(samples.inputs), torch.zeros(len(samples), dtype=torch.bool))

    ours, _ = consistency(Deployed(), pictures, copies=5)  # type: ignore[arg-type]
    unit = pictures.inputs.float() / 255  # type: ignore[union-attr]
    with torch.no_grad():
        answers = np.stack([net(255 * (unit * n).clip(0, 1)).argmax(1).numpy() for n in (1, 3, 5, 7, 9, 11)], 1)
    authors = np.array([np.mean(a == a[0]) for a in answers])
    np.testing.assert_allclose(ours.numpy(), (6 * authors - 1) / 5, atol=1e-6)
    np.testing.assert_allclose(ours.numpy(), (answers[:, 1:] == answers[:, :1]).mean(1), atol=1e-6)
    assert len(ours.unique()) > 3


# Repair


@pytest.mark.parametrize("size", [1, 3, 5])
def test_clp_orders_channels_by_a_norm_near_that_of_the_unrolled_convolution(size: int) -> None:
    """What is called the channel's bound lies below the norm of the whole linear map, and within a factor of its side.

    The factor is one for the layer, so that mean + u * deviation cuts as it would with it. The authors leave the batch
    norm's epsilon out.
    """
    weight = waves(24, 3, size, size) * torch.linspace(0.2, 2, 24)[:, None, None, None]
    norm = nn.BatchNorm2d(24)
    norm.weight.data, norm.running_var = waves(24) + 1.5, waves(24).square() + 0.3
    gain = norm.weight.abs() / (norm.running_var + norm.eps).sqrt()
    basis = torch.eye(3 * 64).view(3 * 64, 3, 8, 8)
    unrolled = F.conv2d(basis, weight).flatten(2).permute(1, 2, 0)  # (channel, place, pixel)
    exact = torch.linalg.matrix_norm(unrolled, ord=2) * gain
    ours = lipschitz_bounds(weight, norm)
    ratio = (exact / ours).detach()
    assert ratio.min() >= 1 - 1e-5
    assert ratio.max() <= size + 1e-5
    assert spearmanr(ours.numpy(), exact.detach().numpy()).statistic > 0.95
    if size == 1:
        torch.testing.assert_close(ours, exact.detach())


def test_ft_sam_steps_as_the_adaptive_sam_of_pytorch_optimizer(net: Fixed) -> None:
    """Three steps of momentum SGD, to a hundred thousandth."""
    sam = pytest.importorskip("pytorch_optimizer", reason="needs pytorch_optimizer (the dev extra)").SAM
    x, y = digits(32)
    batch, defense = Batch(x, y, torch.arange(32), rng(), 0.0), FtSam(rho=2.0, smoothing=0.1)
    ours, theirs = copy.deepcopy(net), copy.deepcopy(net)
    plain = torch.optim.SGD(ours.parameters(), lr=0.05, momentum=0.9)
    sharp = sam(theirs.parameters(), torch.optim.SGD, rho=2.0, adaptive=True, lr=0.05, momentum=0.9)

    def closure() -> Tensor:
        sharp.zero_grad()
        loss = F.cross_entropy(theirs(x), y, label_smoothing=0.1)
        loss.backward()
        return loss

    for _ in range(3):
        plain.zero_grad()
        defense.loss(ours, batch).backward()
        plain.step()
        closure()
        sharp.step(closure)
    for (name, a), b, before in zip(ours.named_parameters(), theirs.parameters(), net.parameters()):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, msg=name)
        assert (a - before).abs().max() > 1e-4


class Noisy(nn.Module):
    """A batch norm with the mask and the noise of ANP, as its authors' models have them."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm, self.noisy = norm, False
        self.mask = nn.Parameter(torch.ones_like(norm.weight))
        self.noise, self.noise_bias = (
            nn.Parameter(torch.zeros_like(norm.weight)),
            nn.Parameter(torch.zeros_like(norm.bias)),
        )

    def forward(self, x: Tensor) -> Tensor:
        weight = self.norm.weight * (self.mask + self.noise if self.noisy else self.mask)
        bias = self.norm.bias * (1 + self.noise_bias) if self.noisy else self.norm.bias
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=self.norm.eps)


def authors_masks(net: CNN, x: Tensor, y: Tensor, defense: Anp, project: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """The masks after all steps of the authors' training loop, with the noise projected after its step."""
    net, draws, layers = copy.deepcopy(net).eval().requires_grad_(False), rng(5), []
    for stage in net.stages:
        for name, layer in list(stage.named_children()):
            if isinstance(layer, nn.BatchNorm2d):
                layers.append(Noisy(layer))
                setattr(stage, name, layers[-1])
    mask_optimiser = torch.optim.SGD([layer.mask for layer in layers], lr=defense.lr, momentum=0.9)
    noises = [noise for layer in layers for noise in (layer.noise, layer.noise_bias)]
    noise_optimiser = torch.optim.SGD(noises, lr=defense.eps)

    def loss(rows: Tensor, noisy: bool) -> Tensor:
        for layer in layers:
            layer.noisy = noisy
        return F.cross_entropy(net(x[rows]), y[rows])

    for rows in draw_batches(len(x), defense.batch_size, defense.steps, draws):
        for noise in noises:
            noise.data = (torch.rand(noise.shape, generator=draws) * 2 - 1) * defense.eps
        noise_optimiser.zero_grad()
        (-loss(rows, True)).backward()
        for noise in noises:
            noise.grad = noise.grad.sign()  # type: ignore[union-attr]
        noise_optimiser.step()
        for noise in noises:
            noise.data = project(noise.data)
        mask_optimiser.zero_grad()
        (defense.alpha * loss(rows, False) + (1 - defense.alpha) * loss(rows, True)).backward()
        mask_optimiser.step()
        for layer in layers:
            layer.mask.data.clamp_(0, 1)
    return [layer.mask.detach() for layer in layers]


def test_anp_learns_the_masks_of_the_authors_loop_with_its_noise_projected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps, to a ten thousandth. The authors' step from a random start may leave the ball of radius eps, by up to
    as much again; the paper's maximum (equation 3) is within it, and so is our noise."""
    monkeypatch.setattr(anp, "autocast", lambda device: nullcontext())
    task, (x, y) = tiny("digits"), digits(64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = CNN(1, CLASSES, width=4)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data, layer.bias.data = 1 + waves(layer.num_features) / 2, waves(layer.num_features) / 2
    victim, defense = Victim(task, module, CPU), Anp(steps=10, batch_size=32)
    rows = Samples(x.to(torch.uint8), y, torch.arange(64))
    ours = defense.learn_mask(victim, rows, rng(5))
    encoded, targets = task.rows(rows, CPU)
    theirs = authors_masks(module, encoded, targets, defense, lambda noise: noise.clamp(-defense.eps, defense.eps))
    for (name, _), wanted in zip(find_batch_norms(victim), theirs, strict=True):
        torch.testing.assert_close(ours[name], wanted, atol=1e-4, rtol=0)
    free = torch.cat(authors_masks(module, encoded, targets, defense, lambda noise: noise))
    assert (torch.cat(theirs) - free).abs().max() > 0.01, "the projection matters"
    assert torch.cat(theirs).min() < 0.95


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", [(7, 50), (6, 3, 5, 5)])
def test_weights_are_rounded_as_torch_fakes_it_row_by_row(bits: int, shape: tuple[int, ...]) -> None:
    """With the scale of LLM.int8(), largest / 127. The observers of torch.ao use -128 as well: largest / 127.5."""
    weight, most = 3 * torch.randn(shape, generator=rng()), 2 ** (bits - 1) - 1
    scales = weight.flatten(1).abs().amax(1) / most
    theirs = torch.fake_quantize_per_channel_affine(
        weight, scales, torch.zeros(len(weight), dtype=torch.int32), 0, -most, most
    )
    torch.testing.assert_close(round_weights(weight, bits), theirs, atol=1e-6, rtol=1e-6)
    whole = round_weights(weight, bits).flatten(1) / scales[:, None]
    torch.testing.assert_close(whole, whole.round(), atol=1e-3, rtol=0)
    assert whole.abs().max().round() == most
