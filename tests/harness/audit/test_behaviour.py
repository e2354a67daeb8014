"""The statistics of an audit: on numbers worked out by hand, and on networks of which it is known what they do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from harness.audit import behaviour, detectors
from harness.audit.behaviour import Plan, holm, moved, try_triggers
from harness.audit.data import open_data
from harness.audit.detectors import Reading, beside_classes, beside_models, beside_shares
from harness.audit.media import MEDIA, Numbers, Words, phrase_size
from harness.audit.models import Loaded
from harness.audit.subject import wrap
from tasks.deployed import Victim
from tasks.samples import Samples

PLAN = Plan(rows=40, strengths=(1.0, 0.5), draws=399)


@pytest.fixture(autouse=True)
def _few_triggers(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: behaviour.TRIGGERS["image"][name] for name in ("badnets", "blended", "wanet")}
    monkeypatch.setitem(behaviour.TRIGGERS, "image", few)


def test_shares_are_of_the_rows_that_were_not_of_the_class_before() -> None:
    before, after = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 0, 1, 1])
    assert moved(before, after, 3).tolist() == pytest.approx([0, 2 / 3, 0])
    assert moved(torch.zeros(3).long(), torch.zeros(3).long(), 2).tolist() == [0, 0]


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def numbers(medium: str) -> Numbers:
    found = MEDIA[medium]
    assert isinstance(found, Numbers)
    return found


@pytest.mark.parametrize(
    ("medium", "shape", "norms"),
    [("image", (3, 9, 8), (20, 50, 100, 800)), ("audio", (1000,), (0.1, 1, 4, 8))],
)
def test_a_random_change_moves_every_row_by_the_norm_that_is_asked_for(
    medium: str, shape: tuple[int, ...], norms: tuple[float, ...]
) -> None:
    about, wanted = numbers(medium), torch.tensor(norms, dtype=torch.float32)
    rng = torch.Generator().manual_seed(0)
    x = about.low + torch.rand(4, *shape, generator=rng) * (about.high - about.low)
    for direction in about.directions(shape, 6, 1):
        assert direction.shape == shape
        found = about.add(x, direction, wanted)
        assert torch.allclose((found - x).flatten(1).norm(dim=1), wanted, rtol=0.05)
        assert found.min() >= about.low
        assert found.max() <= about.high
    first, again, other = (torch.stack(list(about.directions(shape, 3, seed))) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_random_change_of_texts_has_as_many_words_as_the_trigger() -> None:
    clean = ["a b c d", "e f g h i"]
    assert phrase_size(clean, ["a x y b c d", "e f x y g h i"]) == (2, True)
    assert phrase_size(clean, ["a x c d", "e f g x i"]) == (1, False)
    task = open_data("synthetic_reviews", None, False)
    for stamped, longer in ((["x y " + text for text in clean], 2), (["x b c d", "x f g h i"], 0)):
        changes = list(Words().change(task, clean, stamped, 5, 0))
        for changed in changes:
            assert [len(text.split()) for text in changed] == [4 + longer, 5 + longer]
            assert {word for text in changed for word in text.split()} <= set("abcdefghi")
        assert changes == list(Words().change(task, clean, stamped, 5, 0))
        assert len({tuple(changed) for changed in changes}) > 1


class Backdoored(nn.Module):
    """Reads the class from the mean of the upper half, and answers 3 to a checkerboard in the lower right corner."""

    def __init__(self, fires: bool) -> None:
        super().__init__()
        self.fires = fires

    def forward(self, x: Tensor) -> Tensor:
        label = (x[:, 0, :4].mean((1, 2)) / 20).round().long().clamp(0, 9)
        patch = x[:, 0, 4:7, 4:7].flatten(1)
        board = torch.tensor([1.0, 0, 1, 0, 1, 0, 1, 0, 1]) * 2 - 1
        seen = (patch @ board > 1000) & self.fires
        return torch.nn.functional.one_hot(torch.where(seen, 3, label), 10).float()


def rows(n: int = 40) -> Samples:
    targets = torch.arange(n) % 10
    inputs = torch.full((n, 1, 8, 8), 100, dtype=torch.uint8)
    inputs[:, 0, :4] = (targets * 20)[:, None, None]
    return Samples(inputs, targets, torch.arange(n))


def victim(fires: bool) -> Victim:
    task = open_data("digits", None, False)
    return wrap(Loaded(Backdoored(fires), "net", exact=True), task, "raw", None, rows()).victim


def test_the_trigger_that_a_model_was_made_for_is_called_and_no_other_one() -> None:
    found = try_triggers(victim(True), rows(), PLAN, 0)
    called = {s.trigger for s in found if s.adjusted <= 0.05}
    (badnets,) = [s for s in found if s.trigger == "badnets" and s.strength == 1]
    assert (badnets.share, badnets.target, badnets.draws) == (1.0, 3, 399)
    assert badnets.p == pytest.approx(1 / 400)
    assert badnets.adjusted == pytest.approx(len(found) / 400)
    assert called == {"badnets"}
    assert all(s.adjusted == 1 for s in try_triggers(victim(False), rows(), PLAN, 0))


def test_a_quick_plan_ends_with_the_first_trigger_that_is_called() -> None:
    plan = Plan(rows=40, strengths=(1.0, 0.5), draws=399, stop_at_first=True)
    assert sum(s.draws > 0 for s in try_triggers(victim(True), rows(), plan, 0)) == 1


def test_equal_seeds_give_equal_results() -> None:
    first, again = (try_triggers(victim(True), rows(), Plan(rows=20, draws=30), 5) for _ in range(2))
    assert first == again


def test_draws_end_where_enough_random_changes_are_as_strong(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nervous(nn.Module):
        """Answers 3 to any change of a picture."""

        def forward(self, x: Tensor) -> Tensor:
            label = (x[:, 0, :4].mean((1, 2)) / 20).round().long().clamp(0, 9)
            changed = (x[:, 0, 4:] != 100).any(2).any(1)
            return torch.nn.functional.one_hot(torch.where(changed, 3, label), 10).float()

    task = open_data("digits", None, False)
    nervous = wrap(Loaded(Nervous(), "net", exact=True), task, "raw", None, rows()).victim
    found = try_triggers(nervous, rows(), PLAN, 0)
    assert any(s.share == 1 for s in found)
    assert all(s.adjusted == 1 for s in found)
    assert {s.draws for s in found if s.share == 1} <= {0, behaviour.ENOUGH}


def test_triggers_that_do_not_fit_are_named() -> None:
    small = Samples(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(2).long(), torch.arange(2))
    assert "badnets" in behaviour.find_unfit(victim(True), small)
    assert "badnets" not in behaviour.find_unfit(victim(True), rows())


def reading(values: list[float]) -> Reading:
    return Reading("d", 1.0, torch.tensor(values, dtype=torch.float64))


def test_beside_clean_models_p_counts_those_that_lead_as_far() -> None:
    rng = torch.Generator().manual_seed(0)
    nulls = list(torch.randn(19, 5, generator=rng, dtype=torch.float64))
    far = beside_models(reading([0, 0, 9, 0, 0]), nulls)
    assert (far.p, far.target, far.nulls) == (1 / 20, 2, 19)
    usual = torch.tensor([float(beside_models(reading(list(x)), nulls[1:]).p) for x in nulls[:1]])
    assert usual.item() > 1 / 19


def test_beside_clean_models_p_is_uniform_where_the_model_is_one_of_them() -> None:
    """Whatever the classes: here their statistics differ tenfold."""
    rng, p = torch.Generator().manual_seed(1), []
    scale = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    for _ in range(400):
        x = torch.randn(10, 3, generator=rng, dtype=torch.float64) * scale + scale * 7
        p.append(beside_models(Reading("d", 0.0, x[0]), list(x[1:])).p)
    counts = torch.tensor(p).mul(10).round().long().bincount(minlength=11)[1:]
    assert counts.sum() == 400
    assert float(((counts - 40) ** 2 / 40).sum()) < 27.9  # chi squared, 9 degrees of freedom, p = 0.001


def test_shares_beside_those_of_clean_models() -> None:
    seen = torch.tensor([[0.1, 0.9], [0.0, 0.0]])
    nulls = [torch.tensor([[0.1, 0.2], [0.7, 0.0]])] * 4
    found = beside_shares("t", seen, nulls)
    assert (found.p, found.target) == (1 / 5, 1)
    assert found.score == pytest.approx(0.7)
    assert beside_shares("t", nulls[0], nulls).p == 1


def test_beside_other_classes_by_hand() -> None:
    found = beside_classes(reading([1, 2, 3, 10]))
    # (10 - 2) / (1 * sqrt(1 + 1/3)) = 6.928, t with 2 degrees of freedom: 0.01010 one-sided, times four classes
    assert found.target == 3
    assert found.p == pytest.approx(0.0404, abs=2e-4)
    assert beside_classes(reading([1, 1, 1, 1])).p == 1


def test_how_many_clean_models_it_takes() -> None:
    for tests in (1, 2, 3):
        needed = detectors.models_needed(0.05, tests)
        assert tests * detectors.smallest_p(needed) <= 0.05 + 1e-12 < tests * detectors.smallest_p(needed - 1)
    assert detectors.models_needed(0.05, 3) == 59
