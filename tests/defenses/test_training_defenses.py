"""Defenses that change how a victim is trained: what they compute, against plain re-computations."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import CLASSIFIED, EXAMPLES, tiny
from torch import Tensor

from defenses.training.abl import Abl, accuracy, row_losses
from defenses.training.adversarial_training import AdversarialTraining
from defenses.training.mixing import Mixing, cut_rectangle, cut_tokens
from defenses.training.partition_ensemble import PartitionEnsemble, partition
from harness.cell.case import CellCase, Fitter, change_recipe
from harness.cell.dp import privatise
from harness.cell.train import make_network, make_optimizer, train_victim
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.base import Batch
from tasks.deployed import Victim, certified_radius, layout, tie_ranks
from tasks.net import Net
from tasks.samples import Samples

N = 7


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def net_and_batch(modality: str, dp: bool = False) -> tuple[Net, Batch]:
    task = tiny(EXAMPLES[modality])
    recipe = change_recipe(task.recipe(), {"dp_clip": 1.0} if dp else {})
    rows = task.load().train.select(range(N))
    x, y = (t[:N] for t in task.rows(rows, CPU))
    return make_network(task, recipe, 0, CPU, None), Batch(layout(x), y, torch.arange(N), rng(), progress=1.0)


def case_of(samples: Samples, task_name: str, store: Store) -> CellCase:
    task = tiny(task_name)
    return CellCase(samples, task.load().reserve, Fitter(task, store, CPU, 0), rng())


@pytest.mark.parametrize(
    ("modality", "clip"), [*((m, 2.0) for m in CLASSIFIED), ("language", 1.0), ("image_generation", 1.0)]
)
def test_private_gradient_is_that_of_a_plain_loop(modality: str, clip: float) -> None:
    module, batch = net_and_batch(modality, dp=True)
    task = tiny(EXAMPLES[modality])
    reference = copy.deepcopy(module)
    weights, norms = list(reference.parameters()), []
    expected = [torch.zeros_like(w) for w in weights]
    for row in task.loss(reference, replace(batch, rng=rng())):
        slopes = torch.autograd.grad(row, weights, retain_graph=True, materialize_grads=True)
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in slopes)))
        expected = [e + g * min(1.0, clip / norms[-1]) / N for e, g in zip(expected, slopes)]
    assert max(norms) > clip, "nothing would be clipped"
    recipe = change_recipe(task.recipe(), {"dp_clip": clip, "dp_noise": 0.0, "lr": 1e-9})
    with privatise(module, make_optimizer(module, recipe), recipe, N, 1, seed=0) as optimizer:
        task.loss(module, batch).mean().backward()
        optimizer.step()
        for (name, p), e in zip(module.named_parameters(), expected):
            assert torch.allclose(p.grad, torch.as_tensor(e), atol=1e-5), name  # type: ignore[arg-type]
    assert not any(hasattr(p, "grad_sample") for p in module.parameters())


def test_private_noise_has_the_stated_size_and_is_seeded() -> None:
    def step(seed: int) -> Tensor:
        module, batch = net_and_batch("image", dp=True)
        recipe = change_recipe(tiny("digits").recipe(), {"dp_clip": 1e-4, "dp_noise": 5.0})
        with privatise(module, make_optimizer(module, recipe), recipe, N, 1, seed) as optimizer:
            (0 * tiny("digits").loss(module, batch).mean()).backward()
            optimizer.step()
        return torch.cat([p.grad.flatten() for p in module.parameters()])  # type: ignore[union-attr]

    noise = step(0)
    assert noise.std().item() == pytest.approx(1e-4 * 5 / N, rel=0.05)
    assert torch.equal(noise, step(0))
    assert not torch.equal(noise, step(1))


def test_private_victims_are_deterministic_plain_networks_with_uneven_batches_and_frozen_bodies() -> None:
    task = tiny("digits")
    rows = task.load().train.select(range(50))  # batches of 17, 17 and 16
    recipe = change_recipe(task.recipe(), {"dp_clip": 1.0, "dp_noise": 0.1, "batch_size": 20})
    first, again = (train_victim(task, rows, recipe=recipe, seed=3, device=CPU) for _ in range(2))
    states = first.module.state_dict(), again.module.state_dict()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not any(key.startswith("_module") or "running" in key for key in states[0])
    frozen = change_recipe(recipe, {"frozen": "body"})
    tuned = train_victim(task, rows, recipe=frozen, seed=4, device=CPU, init=first).module.state_dict()
    assert {k for k in tuned if not torch.equal(tuned[k], states[0][k])} == {"head.weight", "head.bias"}


@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_adversarial_perturbation_stays_in_its_ball_and_raises_the_loss(modality: str) -> None:
    module, batch = net_and_batch(modality)
    e = module.eval().embed(batch.x).detach().float()
    moved = AdversarialTraining().perturb(module, e, batch, 0.05)
    if modality == "text":
        assert ((moved - e).norm(dim=(1, 2)) <= 0.05 * e.norm(dim=2).mean() * 1.001).all()
    else:
        assert (moved - e).abs().max() <= 0.05 * (e.max() - e.min()) * 1.001
        assert moved.min() >= e.min() - 1e-5
        assert moved.max() <= e.max() + 1e-5
    before, after = (F.cross_entropy(module.head(module.body(x)), batch.y) for x in (e, moved))
    assert after > before


def test_adversarial_loss_without_a_radius_is_the_plain_loss_and_moves_no_statistics() -> None:
    module, batch = net_and_batch("image")
    batch.progress = 0.0
    twin = copy.deepcopy(module).train()
    loss = AdversarialTraining().loss(8 / 255, module.train(), batch)
    assert torch.allclose(loss, F.cross_entropy(twin(batch.x), batch.y, reduction="none"), atol=1e-4)
    assert module.training
    after, expected = module.state_dict(), twin.state_dict()
    assert all(torch.allclose(after[k], expected[k], atol=1e-5) for k in after), (
        "one forward pass in train mode, not six"
    )


def test_cutmix_rectangles_keep_the_share_they_say() -> None:
    import numpy as np

    e, partner = torch.zeros(4, 3, 9, 11), torch.tensor([1, 0, 3, 2])
    e[[1, 3]] = 1.0
    for share in (0.0, 0.3, 0.8, 1.0):
        mixed, kept = cut_rectangle(e, partner, share, np.random.default_rng(0))
        assert torch.allclose((mixed == e).float().mean((1, 2, 3)), kept)
        cut = (mixed != e)[0, 0]
        rows, cols = cut.any(1).nonzero(), cut.any(0).nonzero()
        if len(rows):
            assert cut[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1].all(), "one rectangle"
    assert kept.eq(1).all()  # a share of 1 keeps everything


def test_cutmix_counts_real_tokens() -> None:
    import numpy as np

    x = torch.tensor([[5, 5, 5, 5, 0, 0], [7, 7, 0, 0, 0, 0]])
    e = x[..., None].float()
    for seed in range(5):
        mixed, kept = cut_tokens(e, x != 0, torch.tensor([1, 0]), 0.5, np.random.default_rng(seed))
        for row, own in ((0, 5.0), (1, 7.0)):
            real = mixed[row, mixed[row] > 0]
            assert kept[row].item() == pytest.approx((real == own).float().mean().item() if len(real) else 1.0)
    assert mixed[:, 4:].eq(0).all(), "the run lies within the longest text"


@pytest.mark.parametrize("modality", ["image", "text", "audio"])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_of_equal_labels_is_bounded_by_them_and_draws_from_the_batch_alone(kind: str, modality: str) -> None:
    module, batch = net_and_batch(modality)
    mixing = Mixing(kind=kind)  # type: ignore[arg-type]
    first = mixing.loss(module.eval(), batch)
    torch.manual_seed(99)  # must not matter
    batch.rng = rng()
    assert torch.equal(first, mixing.loss(module, batch))
    assert first.shape == (N,)
    same = Batch(batch.x[:1].expand_as(batch.x), batch.y[:1].expand(N), batch.rows, rng(), 0.5)
    plain = F.cross_entropy(module(same.x), same.y, reduction="none")
    assert torch.allclose(mixing.loss(module, same), plain, atol=1e-4), "mixing a row with itself changes nothing"


def test_abl_isolates_the_lowest_losses_reports_them_and_unlearns_them(store: Store) -> None:
    train = tiny("digits").load().train
    case = case_of(train, "digits", store)
    abl = Abl(isolate=0.05, unlearn_lr=0.05)
    deployed = abl.defend(case)
    found = case.findings
    assert found.train is not None
    assert found.flagged is not None
    assert found.flagged.sum() == math.ceil(0.05 * len(train))
    assert found.train[found.flagged].min() >= found.train[~found.flagged].max()
    assert isinstance(deployed, Victim)
    assert torch.isfinite(row_losses(deployed, train)).all(), "the ascent has an end"


def test_abl_unlearns_as_much_as_the_other_rows_allow(store: Store) -> None:
    train = tiny("digits").load().train
    case, isolated, rest = case_of(train, "digits", store), train.select(range(6)), train.select(range(6, len(train)))
    victim = case.fit(train, epochs=20)
    whole, careful = (
        Abl(unlearn_lr=0.05, tolerance=share).unlearn(case, victim, isolated, rest) for share in (1.0, 0.02)
    )
    assert row_losses(whole, isolated).mean() > row_losses(victim, isolated).mean() + 1
    assert accuracy(whole, rest) < 0.98 * accuracy(victim, rest) <= accuracy(careful, rest)


def test_abl_ascent_stops_at_a_blind_guess() -> None:
    module, batch = net_and_batch("image")
    batch.y = module.eval()(batch.x).argmin(1)  # every loss is above ln K
    Abl().unlearning(module, batch).mean().backward()
    assert all(p.grad is None or not p.grad.any() for p in module.parameters())
    batch.y = module(batch.x).argmax(1)
    Abl().unlearning(module, batch).mean().backward()
    assert module.head.weight.grad is not None
    assert module.head.weight.grad.any()


def test_parts_depend_on_content_alone() -> None:
    for name in EXAMPLES.values():
        train = tiny(name).load().train
        parts = partition(train, 8)
        assert torch.equal(torch.cat([p.ids for p in parts]).sort().values, train.ids.sort().values), "a partition"
        shuffled = train.select(torch.randperm(len(train), generator=rng()))
        shuffled = Samples(shuffled.inputs, shuffled.targets, torch.arange(len(train)) + 5000)
        assert [p.fingerprint for p in partition(shuffled, 8)] == [p.fingerprint for p in parts]
        one_more = train.append(tiny(name).load().test.select([0]))
        changed_parts = [a.fingerprint != b.fingerprint for a, b in zip(partition(one_more, 8), parts)]
        assert sum(changed_parts) == 1, "one poison, one part"
        relabelled = Samples(train.inputs, (train.targets + 1) % 2, train.ids)
        assert [len(p) for p in partition(relabelled, 8)] == [len(p) for p in parts], "labels do not matter"


def test_an_ensemble_of_tiny_and_empty_parts_votes_and_certifies(store: Store) -> None:
    splits = tiny("digits").load()
    few = splits.train.select(range(6))  # parts without some classes, of one row, of none
    model = PartitionEnsemble(parts=9, epochs=1).defend(case_of(few, "digits", store))
    outputs = model.predict(splits.test)
    votes = outputs.scores * 9
    assert torch.allclose(votes, votes.round(), atol=1e-3), "but for the order of ties"
    assert (votes.sum(1) < 8.5).all(), "an empty part has no vote"
    assert outputs.radius is not None
    ranks = tie_ranks(splits.test, 10)
    assert torch.equal(outputs.radius, certified_radius(votes.round().long(), ranks) // 2), "a poison changes two parts"


def test_a_part_takes_no_fewer_steps_than_the_undefended_victim(store: Store) -> None:
    case = case_of(tiny("digits").load().train, "digits", store)
    seen = []

    def fit(part: Samples, **changes: Any) -> Victim:
        seen.append(math.ceil(len(part) / changes["batch_size"]) * changes["epochs"])
        return case_fit(part, **changes | {"epochs": 1})

    case_fit, case.fit = case.fit, fit  # type: ignore[method-assign, assignment]
    PartitionEnsemble(parts=5).defend(case)
    usual = case.task.recipe()
    assert min(seen) >= usual.epochs * math.ceil(len(case.train) / usual.batch_size)


def test_certified_radius_is_exact() -> None:
    """On every table of up to 5 votes among 3 classes: no `radius` moved votes change the winner, and one more can."""

    def reachable(counts: tuple[int, ...], moves: int) -> set[tuple[int, ...]]:
        seen = {counts}
        for _ in range(moves):
            seen |= {
                tuple(v - (k == a) + (k == b) for k, v in enumerate(votes))
                for votes in seen
                for a, b in itertools.permutations(range(3), 2)
                if votes[a]
            }
        return seen

    ranks = (2, 0, 1)

    def winner(votes: tuple[int, ...]) -> int:
        return min(range(3), key=lambda k: (-votes[k], ranks[k]))

    tables = [t for t in itertools.product(range(6), repeat=3) if 1 <= sum(t) <= 5]
    radii = certified_radius(torch.tensor(tables), torch.tensor(ranks).expand(len(tables), 3)).tolist()
    for table, radius in zip(tables, radii):
        assert {winner(v) for v in reachable(table, radius)} == {winner(table)}, (table, radius)
        if radius < max(table):
            assert len({winner(v) for v in reachable(table, radius + 1)}) > 1, (table, radius)
