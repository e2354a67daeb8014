"""Filters and selections of training rows by their features and gradients: the equations, on small tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from defenses.filtering.deep_knn import lead_of_others
from defenses.filtering.scan import anomaly, leading_axes, split, whitening_of, within_covariance
from defenses.filtering.spectre import Spectre, que, trim_rows, whiten
from defenses.training.cbd import row_weights
from defenses.training.epic import choose_medoids, isolated_rows
from harness.cell import steps
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.plugin import NotApplicable


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Deep k-NN


def test_a_row_among_another_class_is_outvoted_and_a_tie_is_not() -> None:
    features = torch.tensor([[0.0], [0.1], [0.2], [0.15], [9.0], [9.1], [9.2]])
    targets = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    assert lead_of_others(features, targets, 3, 2).mul(3).round().tolist() == [-1, -1, -1, 3, -1, -1, -1]
    tied = lead_of_others(torch.tensor([[0.0], [0.1], [0.2]]), torch.tensor([0, 0, 1]), 2, 2)
    assert tied.tolist() == [0.0, 0.0, 1.0], "own label once, the other once: the row stays"
    assert lead_of_others(features[:1], targets[:1], 50, 2).tolist() == [0.0], "no neighbours, no verdict"


def test_more_poisons_than_half_of_k_hide_each_other() -> None:
    clean, poison = torch.randn(100, 4, generator=rng()), 0.01 * torch.randn(8, 4, generator=rng(1))
    features, targets = torch.cat([clean, poison]), torch.tensor([0] * 100 + [1] * 8)
    assert (lead_of_others(features, targets, 16, 2)[100:] > 0).all()
    assert not (lead_of_others(features, targets, 6, 2)[100:] > 0).any()


# SPECTRE


def test_whitening_makes_the_kept_rows_round_in_large_samples() -> None:
    x = torch.randn(20000, 3, generator=rng(), dtype=torch.float64) @ torch.tensor(
        [[3.0, 0, 0], [1, 1, 0], [0, 2, 2]], dtype=torch.float64
    )
    kept = torch.arange(20000) < 15000
    white = whiten(x + 7, kept)[kept]
    torch.testing.assert_close(white.T.cov(correction=0), torch.eye(3, dtype=torch.float64), atol=2e-3, rtol=0)
    torch.testing.assert_close(white.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_que_is_the_published_formula() -> None:
    x = torch.randn(50, 4, generator=rng(), dtype=torch.float64) * torch.tensor([1.0, 1.2, 0.9, 2.0])
    s = x.T.cov(correction=0)
    q = torch.linalg.matrix_exp(4 * (s - torch.eye(4)) / (torch.linalg.matrix_norm(s, 2) - 1))
    q = q / q.trace()
    scores, trace = que(x, 4.0)
    torch.testing.assert_close(scores, torch.einsum("ni,ij,nj->n", x, q, x))
    assert trace == pytest.approx(float((q @ s).trace()))
    flat, _ = que(x, 0.0)
    torch.testing.assert_close(flat, x.square().sum(1) / 4)


def hidden_poison(n: int = 200, poison: int = 20) -> Tensor:
    """Features with three wide directions, and `poison` last rows that stand out in a narrow one."""
    spread = torch.tensor([20.0, 15, 10, 1, 1, 1, 1, 1])
    x = torch.randn(n, 8, generator=rng(), dtype=torch.float64) * spread
    x[n - poison :, 6] += 5
    return x


def test_trimming_and_whitening_find_what_the_widest_direction_hides() -> None:
    x = hidden_poison()
    widest = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[0]
    plain = ((x - x.mean(0)) @ widest).square().topk(30).indices
    assert (plain >= 180).float().sum() < 12, "the top singular vector points elsewhere"
    kept = trim_rows(x, 40)
    assert int((~kept).sum()) == 40
    assert int((~kept)[180:].sum()) >= 15
    scores, trace = Spectre().score(x, 20)
    assert int((scores.topk(30).indices >= 180).sum()) >= 18
    assert trace > Spectre().score(x[:180], 20)[1], "the class with poison has the larger trace"


# SCAn


def test_covariances_by_em_are_those_that_rows_were_drawn_from() -> None:
    within = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    means = 4 * torch.randn(40, 2, generator=rng(), dtype=torch.float64)
    targets = torch.arange(40).repeat_interleave(50)
    noise = torch.randn(2000, 2, generator=rng(1), dtype=torch.float64) @ torch.linalg.cholesky(within).T
    found = within_covariance(means[targets] + noise, targets, 100)
    torch.testing.assert_close(found, within, atol=0.15, rtol=0)
    root = whitening_of(found)
    torch.testing.assert_close(root.T @ found @ root, torch.eye(2, dtype=torch.float64))


def test_two_means_gain_the_published_ratio_and_the_group_without_clean_rows_is_named() -> None:
    x = torch.cat([torch.randn(60, 3, generator=rng()), torch.randn(20, 3, generator=rng(1)) + 9]).double()
    gain, group = split(x, x[:10], 0)
    assert torch.equal(group, torch.arange(80) >= 60)
    apart = (x[:60].mean(0) - x[60:].mean(0)).square().sum()
    assert gain == pytest.approx(float(60 * 20 / 80 * apart / 80))
    assert torch.equal(split(x, x[70:], 0)[1], torch.arange(80) < 60), "clean rows decide, not the size"
    assert torch.equal(split(x, x[:0], 0)[1], group), "without clean rows the smaller one"
    assert split(torch.ones(5, 3).double(), x[:2], 0)[0] == 0


def test_the_anomaly_index_is_signed() -> None:
    torch.testing.assert_close(anomaly(torch.tensor([1.0, 2, 3, 4, 100])), torch.tensor([-2.0, -1, 0, 1, 97]) / 1.4826)


def test_no_more_axes_than_the_rank_and_than_asked_for() -> None:
    x = torch.randn(30, 6, generator=rng(), dtype=torch.float64)
    assert leading_axes(x, 4).shape == (6, 4)
    flat = x[:, :2] @ torch.randn(2, 6, generator=rng(), dtype=torch.float64)
    assert leading_axes(flat, 4).shape == (6, 2)


def test_scan_wants_three_classes(store: Store) -> None:
    task = create("tasks", "synthetic_reviews", {"train_size": 40})
    with pytest.raises(NotApplicable, match="2 classes"):
        steps.run_steps(task, create("attacks", "none"), 0, create("defenses", "scan"), 0, store, CPU)  # type: ignore[arg-type]


# EPIC


def test_lazy_greedy_chooses_what_plain_greedy_does() -> None:
    x = torch.randn(60, 5, generator=rng())
    apart = torch.cdist(x, x)
    nearest, plain = apart.max().expand(60).clone(), []
    for _ in range(12):
        gains = (nearest - apart).clamp(min=0).sum(1)
        gains[plain] = -1
        plain.append(int(gains.argmax()))
        nearest = nearest.minimum(apart[plain[-1]])
    assert choose_medoids(apart, 12).tolist() == plain


def test_a_gradient_that_stands_alone_is_isolated_within_its_class() -> None:
    crowd = 0.01 * torch.randn(30, 3, generator=rng())
    gradients = torch.cat([crowd, torch.tensor([[5.0, 0, 0]]), crowd + 5])
    targets = torch.tensor([0] * 31 + [1] * 30)
    assert isolated_rows(gradients, targets, 0.07).nonzero().flatten().tolist() == [30]
    assert not isolated_rows(crowd[:1], torch.zeros(1, dtype=torch.long), 1.0).any(), "never the whole class"


# Whole cells


@pytest.mark.parametrize("name", ["spectre", "scan"])
def test_filters_find_twenty_poisons_among_digits(name: str, store: Store) -> None:
    task, attack = create("tasks", "digits"), create("attacks", "badnets")
    result = steps.run_steps(task, attack, 20, create("defenses", name), 0, store, CPU)  # type: ignore[arg-type]
    assert result.metrics["train_auroc"].value > 0.85


# Weights by an early network


def test_what_the_early_network_knows_weighs_little_and_the_mean_weight_is_one() -> None:
    early, own = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([1.0, 1.0, 1.0])
    torch.testing.assert_close(row_weights(early, own), torch.tensor([0.0, 0.5, 0.75]) / (1.25 / 3))
    assert row_weights(torch.zeros(3), own).tolist() == [1.0, 1.0, 1.0], "nothing is left to tell rows apart by"
