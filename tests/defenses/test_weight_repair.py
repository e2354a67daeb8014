"""Repair of victims by their weights alone or by few clean rows: clp, fst, ft_sam, anp, i_bau."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from columns import Column
from helpers import tiny

from defenses._batch_norm import find_batch_norms, find_convolutions
from defenses.repair.anp import Anp, prune
from defenses.repair.clp import Clp, lipschitz_bounds
from defenses.repair.clp import prune as prune_by_bound
from defenses.repair.fst import Fst, project, start_anew
from defenses.repair.ft_sam import FtSam, climb
from defenses.repair.i_bau import STEP, IBau
from harness.testing.checks import CPU
from tasks._models.cnn import CNN
from tasks._models.linear import MLP
from tasks.base import Batch
from tasks.deployed import Victim
from tasks.image.digits import Digits
from tasks.plugin import NotApplicable


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Column:
    """20 poisons of 1237 digits: the backdoor works on nearly everything."""
    column = Column(tmp_path_factory.mktemp("few"), Digits(), dose=20)
    assert column.asr(column.case.fit(column.train)) > 0.9
    return column


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(x: torch.Tensor, classes: int) -> Batch:
    return Batch(x, torch.arange(len(x)) % classes, torch.arange(len(x)), rng(), 0.0)


@pytest.mark.parametrize("defense", [Fst(alpha=1.0), FtSam(epochs=50), IBau()], ids=lambda d: d.name)
def test_repair_lowers_attack_success_and_keeps_most_of_the_accuracy(few, defense):
    victim, repaired = few.case.fit(few.train), defense.defend(few.case)
    assert few.asr(repaired) < 0.5 * few.asr(victim)
    assert few.accuracy(repaired) > few.accuracy(victim) - 0.1


def test_lipschitz_bound_equals_numpy():
    convolution, norm = torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5)
    norm.weight.data, norm.running_var = torch.randn(5, generator=rng()), torch.rand(5, generator=rng(1)) + 0.1
    kernels = convolution.weight.detach().numpy().reshape(5, 3, 9)
    gains = np.abs(norm.weight.detach().numpy()) / np.sqrt(norm.running_var.numpy() + norm.eps)
    wanted = [np.linalg.svd(kernel, compute_uv=False)[0] * gain for kernel, gain in zip(kernels, gains)]
    np.testing.assert_allclose(lipschitz_bounds(convolution.weight, norm).numpy(), wanted, rtol=1e-5)


def test_clp_prunes_the_one_channel_that_stands_out_and_no_other():
    norm = torch.nn.BatchNorm2d(20)
    norm.bias.data.fill_(1.0)
    bounds = torch.linspace(1, 1.2, 20)
    prune_by_bound(norm, bounds, 3.0)
    assert norm.weight.count_nonzero() == norm.bias.count_nonzero() == 20
    prune_by_bound(norm, bounds.index_fill(0, torch.tensor([7]), 9.0), 3.0)
    assert (norm.weight == 0).nonzero().tolist() == (norm.bias == 0).nonzero().tolist() == [[7]]


def test_clp_sees_all_convolutions_of_a_victim_and_leaves_the_shared_one_alone(few):
    victim = few.case.fit(few.train)
    assert len(list(find_convolutions(victim))) == len(find_batch_norms(victim)) == 6
    pruned = Clp(u=1.0).defend(few.case)
    assert any((norm.weight == 0).any() for _, norm in find_batch_norms(pruned))
    assert not any((norm.weight == 0).any() for _, norm in find_batch_norms(few.case.fit(few.train)))


def test_a_network_without_batch_norm_is_refused_in_one_sentence():
    task = tiny("synthetic_reviews")
    victim = Victim(task, task.model(), CPU)
    with pytest.raises(NotApplicable, match="synthetic_reviews has no batch norm"):
        find_batch_norms(victim)
    with pytest.raises(NotApplicable):
        list(find_convolutions(victim))


def test_feature_shift_starts_a_new_head_and_keeps_the_old_ones_norm(few):
    before = few.case.fit(few.train).module.head.weight
    after = Fst(epochs=10).defend(few.case).module.head.weight
    assert torch.allclose(after.norm(), before.norm())
    likeness = F.cosine_similarity(before.flatten(), after.flatten(), dim=0)
    plain = Fst(epochs=10, alpha=0.0).defend(few.case).module.head.weight
    assert likeness < F.cosine_similarity(before.flatten(), plain.flatten(), dim=0), "alpha keeps it away"


def test_feature_shift_loss_is_cross_entropy_plus_the_inner_product():
    net, before = MLP(6, 3, 4), torch.randn(3, 4, generator=rng())
    start_anew(net.head, rng(1))
    assert 0 < net.head.weight.abs().max() <= 0.5, "within 1 / sqrt(4), as torch draws a new layer"
    batch = batch_of(torch.randn(5, 6, generator=rng(2)), 3)
    loss = Fst(alpha=0.7).loss(net, batch, before)
    assert torch.allclose(net.head.weight.norm(), before.norm())
    assert torch.allclose(loss, F.cross_entropy(net(batch.x), batch.y) + 0.7 * (net.head.weight * before).sum())
    project(net.head.weight, 3 * before)
    assert torch.allclose(net.head.weight.norm(), 3 * before.norm())


def test_sharpness_aware_gradient_is_that_of_the_weights_climbed_to():
    torch.manual_seed(0)
    net, batch, defense = MLP(6, 3, 4), batch_of(torch.randn(5, 6, generator=rng(2)), 3), FtSam(rho=0.5)
    wanted = copy.deepcopy(net)
    slopes = torch.autograd.grad(defense.cross_entropy(wanted(batch.x), batch), list(wanted.parameters()))
    norm = torch.cat([(w * g).flatten() for w, g in zip(wanted.parameters(), slopes)]).norm()
    with torch.no_grad():
        for w, g in zip(wanted.parameters(), slopes):
            w += 0.5 * w**2 * g / norm
    defense.cross_entropy(wanted(batch.x), batch).backward()
    defense.loss(net, batch).backward()
    for w, v in zip(net.parameters(), wanted.parameters()):
        torch.testing.assert_close(w.grad, v.grad)
    assert climb([torch.tensor([2.0, 0.0])], (torch.tensor([1.0, 5.0]),), 3.0)[0].tolist() == [6.0, 0.0]


def test_sharpness_aware_steps_move_batch_statistics_once():
    net, batch = CNN(1, 3, width=4).train(), batch_of(torch.rand(6, 1, 8, 8, generator=rng()) * 255, 3)
    once = copy.deepcopy(net)
    once(batch.x)
    FtSam().loss(net, batch).backward()
    for (name, moved), (_, wanted) in zip(net.named_buffers(), once.named_buffers()):
        assert torch.equal(moved, wanted), name


def test_neuron_masks_are_shares_and_the_victim_is_as_before(few):
    victim, again = few.case.fit(few.train), few.case.fit(few.train)
    mask = Anp(steps=8).learn_mask(victim, few.reserve, rng())
    assert [name for name, _ in find_batch_norms(victim)] == list(mask)
    values = torch.cat(list(mask.values()))
    assert values.min() >= 0
    assert values.max() <= 1
    assert values.min() < 0.9, "some channels are not needed"
    for name, value in victim.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name]), name


def test_a_perturbation_teaches_the_mask_more_than_clean_rows_do(few):
    victim = few.case.fit(few.train)
    sums = [
        sum(part.sum() for part in Anp(steps=16, alpha=alpha, eps=eps).learn_mask(victim, few.reserve, rng()).values())
        for alpha, eps in ((1.0, 0.4), (0.0, 1e-9), (0.0, 0.4))
    ]
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-3, atol=0.0)  # without noise both losses are the clean one
    assert sums[2] < 0.99 * sums[0]


def test_pruning_goes_as_far_as_held_out_accuracy_allows(few):
    victim = few.case.fit(few.train)
    (first, norm), *others = find_batch_norms(victim)
    mask = {name: torch.ones(layer.num_features) for name, layer in others}
    mask[first] = torch.ones(norm.num_features)
    mask[first][3] = 0.6  # one channel
    mask[others[-1][0]] = torch.full_like(mask[others[-1][0]], 0.8)  # the whole last layer, without which all is lost
    before = norm.weight.detach().clone()
    prune(victim, mask, few.reserve, tolerance=0.1)
    assert (norm.weight == 0).nonzero().tolist() == [[3]]
    assert torch.equal(norm.weight[4:], before[4:])
    assert others[-1][1].weight.count_nonzero() == len(mask[others[-1][0]])


def test_implicit_gradient_equals_that_of_whole_matrices():
    torch.manual_seed(0)
    net = MLP(4, 3, 5)
    net.stages[0][1] = torch.nn.Tanh()  # whose second derivative is not zero
    e, y = torch.randn(6, 4, generator=rng()), torch.arange(6) % 3
    change, carried, span = torch.randn(1, 4, generator=rng(1)).requires_grad_(), torch.arange(6) < 2, 1.5
    defense = IBau(fixed_points=4, penalty=0.3)
    found = torch.cat([g.flatten() for g in defense.implicit_gradient(net, e, y, change, span, carried)])

    weights = dict(net.named_parameters())
    flat = torch.cat([w.detach().flatten() for w in weights.values()])

    def losses(theta: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = theta.split([w.numel() for w in weights.values()])
        state = {n: part.view_as(w) for (n, w), part in zip(weights.items(), parts)}

        def ce(x: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(torch.func.functional_call(net, state, (x,)), y)

        return ce(e + carried[:, None] * span * d), ce(e + span * d) - 0.3 * d.square().sum()

    d = change.detach().flatten()
    curvature = torch.func.jacrev(torch.func.grad(lambda d: losses(flat, d)[1]))(d)
    mixed = torch.func.jacrev(torch.func.grad(lambda t, d: losses(t, d)[1], 1))(flat, d)  # (change, weights)
    of_weights, of_change = torch.func.grad(lambda t, d: losses(t, d)[0], (0, 1))(flat, d)
    step = torch.eye(4) + STEP * curvature
    through = sum(torch.linalg.matrix_power(step, k) @ of_change for k in range(4))
    torch.testing.assert_close(found, of_weights + STEP * mixed.T @ through)
    assert not torch.allclose(found, of_weights, rtol=1e-2), "and the way through the change counts"
