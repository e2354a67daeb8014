"""Who delivered which row: how sources are dealt out, what an attacker holds, and the defenses that know them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from attacks.base import Poison
from defenses.sources import permutation_p, reject_holm, savage_scores
from harness.cell.metrics import grade_sources
from harness.cell.poison import inject
from harness.cell.steps import attackers_rows, run_steps
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.plugin import BadInput, NotApplicable
from tasks.samples import Samples
from tasks.sources import deal_sources, held_sources, list_sources, number_sources


def digits(**options: Any) -> Any:
    return create("tasks", "digits", {"data_sources": 6, **options})


def test_rows_are_dealt_out_unequally_and_the_same_every_time() -> None:
    targets = torch.arange(2000) % 10
    sources = deal_sources(targets, 20, 0)
    assert torch.equal(sources, deal_sources(targets, 20, 0))
    assert not torch.equal(sources, deal_sources(targets, 20, 1))
    sizes = sources.bincount(minlength=20)
    assert sizes.min() > 20
    assert sizes.max() > 1.2 * sizes.float().mean()
    shares = torch.stack([targets[sources == s].bincount(minlength=10) / (sources == s).sum() for s in range(20)])
    assert shares.std(0).mean() > 0.02, "sources differ in their classes, beyond what 100 draws do by chance"


def test_names_become_numbers_and_rows_keep_their_source() -> None:
    assert number_sources(["b", "a", "b", 3]).tolist() == [2, 1, 2, 0]
    rows = Samples(["x", "y", "z"], torch.tensor([0, 1, 0]), torch.tensor([5, 6, 7]), torch.tensor([1, 2, 1]))
    new = Samples(["q"], torch.tensor([1]), torch.tensor([9]), torch.tensor([8]))
    assert rows.select([2, 1]).sources.tolist() == [1, 2]  # type: ignore[union-attr]
    assert rows.replace(torch.tensor([1]), new).sources.tolist() == [1, 2, 1]  # type: ignore[union-attr]
    assert rows.append(new).sources.tolist() == [1, 2, 1, 8]  # type: ignore[union-attr]
    assert rows.append(Samples(["q"], torch.tensor([1]), torch.tensor([9]))).sources is None
    added = inject(rows, Poison(new), torch.Generator().manual_seed(0))
    assert added.train.sources is not None
    assert added.train.sources[added.mask].tolist() == [8]


def test_an_attacker_sees_and_poisons_its_own_sources_only(store: Store) -> None:
    task = digits(attacker_sources=2)
    train = task.load().train
    own = attackers_rows(task, train, 0)
    assert len(list_sources(own.sources)) == 2  # type: ignore[arg-type]
    fewer = attackers_rows(digits(attacker_sources=1), train, 0)
    assert set(fewer.ids.tolist()) < set(own.ids.tolist()), "of more sources, the first are the same"
    assert attackers_rows(digits(data_sources=None), digits(data_sources=None).load().train, 0).sources is None
    with pytest.raises(BadInput, match="attacker_sources=6: the training set has 6 sources; one must be honest"):
        held_sources(train, 6, torch.Generator())
    result = run_steps(task, create("attacks", "badnets"), 40, create("defenses", "oracle"), 0, store, CPU)  # type: ignore[arg-type]
    assert result.metrics["sources_found"].value == 0, "the oracle flags rows, of no source the most"
    assert result.metrics["sources_found"].n <= 2
    assert result.metrics["asr"].value < 0.2


def test_without_sources_there_is_nothing_to_know(store: Store) -> None:
    with pytest.raises(BadInput, match="does not say who delivered"):
        create("tasks", "digits", {"data_sources": "real"}).load()  # type: ignore[attr-defined]
    for name in ("source_vote", "source_quarantine", "source_influence"):
        with pytest.raises(NotApplicable, match="data_sources"):
            run_steps(
                digits(data_sources=None), create("attacks", "none"), 0, create("defenses", name), 0, store, CPU  # type: ignore
            )  # fmt: skip


def test_sources_found_and_wrongly_accused() -> None:
    sources = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    poisoned = torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 0]).bool()
    found = grade_sources(sources != 1, sources, poisoned)
    assert {name: (metric.value, metric.n) for name, metric in found.items()} == {
        "sources_found": (1.0, 1), "sources_accused": (0.5, 2),
    }  # fmt: skip
    assert grade_sources(None, sources, poisoned) == grade_sources(poisoned, None, poisoned) == {}


def test_savage_scores_are_of_mean_one_and_weigh_the_top() -> None:
    scores = savage_scores(torch.rand(5000, generator=torch.Generator().manual_seed(0)), torch.zeros(5000).long())
    assert scores.mean() == pytest.approx(1, abs=0.01)
    assert scores.max() > 8
    assert savage_scores(torch.ones(4), torch.zeros(4).long()).tolist() == pytest.approx([-np.log(4 / 5)] * 4)


def test_no_honest_source_is_accused_more_often_than_stated_and_a_bad_one_is_found() -> None:
    accused, found = 0, 0
    for seed in range(60):
        rng = torch.Generator().manual_seed(seed)
        targets, sources = torch.arange(600) % 3, torch.randint(10, (600,), generator=rng)
        suspicion = torch.rand(600, generator=rng) + targets  # classes differ; sources do not
        p = permutation_p(savage_scores(suspicion, targets), sources, targets, 1000, seed)
        accused += bool(reject_holm(p))
        suspicion[(sources == 4).nonzero().flatten()[:12]] += 10
        found += reject_holm(permutation_p(savage_scores(suspicion, targets), sources, targets, 1000, seed)) == {4}
    assert accused <= 7, "at most 5 % of 60, and what chance adds to it"
    assert found >= 50


def test_holm_rejects_in_order() -> None:
    assert reject_holm({1: 0.001, 2: 0.02, 3: 0.6}) == {1, 2}
    assert reject_holm({1: 0.02, 2: 0.03, 3: 0.6}) == set()


def test_a_vote_of_sources_withstands_a_source_that_poisons(store: Store) -> None:
    task, attack = digits(data_sources=9), create("attacks", "badnets")
    found = {
        name: run_steps(task, attack, 60, create("defenses", name), 0, store, CPU).metrics  # type: ignore[arg-type]
        for name in ("none", "source_vote")
    }
    assert found["none"]["asr"].value > 0.7
    assert found["source_vote"]["asr"].value < 0.2
    assert found["source_vote"]["certified_accuracy_at_1"].value > 0.5
