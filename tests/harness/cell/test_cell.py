"""The steps of a cell: null controls, grading, and every way in which a cell can end."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import tiny
from torch import Tensor

from attacks.base import Attack, Poison, Scene, TriggerAttack
from defenses.base import Case, Defense
from defenses.controls.oracle import Oracle
from harness.cell import metrics
from harness.cell.case import CellCase, Fitter, case_for
from harness.cell.poison import craft_poison
from harness.cell.steps import check_applies, make_challenge, make_poisoned, run_steps
from harness.cell.train import train_victim
from harness.errors import Broken, BrokenAttack, BrokenDefense, Diverged
from harness.grid.grid import Cell
from harness.plugins.registry import Spec, create
from harness.run import record_cell
from harness.run.record_cell import run_cell
from harness.run.settings import Settings
from harness.store.folder import Store
from harness.testing.checks import CPU, check_defense
from tasks.base import Batch
from tasks.deployed import Ensemble, Guarded
from tasks.plugin import BadInput, NotApplicable, options
from tasks.samples import Challenge, Outputs, Samples

DIGITS = create("tasks", "digits", {"train_size": 400, "epochs": 4})


def plug(kind: str, name: str, **changes: Any) -> Any:
    return create(kind, name, changes)


def test_none_and_none_is_plain_training_bit_for_bit(store: Store) -> None:
    result = run_steps(DIGITS, plug("attacks", "none"), 0, plug("defenses", "none"), 3, store, CPU)  # type: ignore[arg-type]
    splits = DIGITS.load()  # type: ignore[attr-defined]
    plain = train_victim(DIGITS, splits.train, recipe=DIGITS.recipe(), seed=3, device=CPU)  # type: ignore
    accuracy = (plain.predict(splits.test).scores.argmax(1) == splits.test.targets).float().mean().item()
    assert result.metrics["utility"] == metrics.Metric(accuracy, len(splits.test))
    stored = Fitter(DIGITS, store, CPU, 3)(splits.train)  # type: ignore[arg-type]
    for name, tensor in plain.module.state_dict().items():
        assert torch.equal(stored.module.state_dict()[name], tensor), name
    assert not {"asr", "asr_floor"} & set(result.metrics), "nothing was asked for"


def test_oracle_brings_asr_to_the_floor_and_the_attack_works(store: Store) -> None:
    attack, task = plug("attacks", "badnets"), plug("tasks", "digits")
    found = {
        d: run_steps(task, attack, 40, plug("defenses", d), 0, store, CPU).metrics
        for d in ("none", "oracle")  # type: ignore[arg-type]
    }
    assert found["none"]["asr"].value > 0.8
    assert found["oracle"]["asr"].value < found["oracle"]["asr_floor"].value + 0.1
    assert found["oracle"]["train_tpr"].value == 1
    assert found["oracle"]["train_fpr"].value == 0
    assert found["none"]["asr"].n == int((DIGITS.load().test.targets != 0).sum())  # type: ignore[attr-defined]


def test_fit_is_memoised_by_content(store: Store) -> None:
    task = tiny("digits")
    train = task.load().train
    fit = Fitter(task, store, CPU, 0)
    first = fit(train)
    fit(Samples(train.inputs, train.targets, train.ids + 1000))  # ids do not matter to a victim
    fit(train, epochs=task.epochs)
    assert [f["trained"] for f in fit.fits] == [True, False, False]
    other = Fitter(task, store, CPU, 0)
    other(train)
    assert other.fits[0] == {**fit.fits[0], "trained": False}, "a new process finds it in the store"
    for changes in ({"lr": 1e-4}, {"epochs": 2}, {"seed": 5}, {"init": first}, {"loss": Double().loss}):
        fit(train, **changes)  # type: ignore[arg-type]
    fit(train, loss=Double(factor=3.0).loss)
    fit(train.select(range(len(train) - 1)))
    assert len({f["key"] for f in fit.fits}) == 8
    with pytest.raises(BadInput, match=r"unknown recipe field 'epoch'; valid: .*epochs"):
        fit(train, epoch=3)
    with pytest.raises(TypeError, match="no stable content"):
        fit(train, loss=lambda module, batch: batch.x.mean())


@options
class Double(Defense):
    """A loss of one's own."""

    factor: float = 2.0

    def loss(self, module: Any, batch: Batch) -> Tensor:
        return self.factor * torch.nn.functional.cross_entropy(module(batch.x).float(), batch.y)


def test_clean_rows_are_counted_and_bounded_by_the_reserve(store: Store) -> None:
    splits = tiny("digits").load()
    case = CellCase(splits.train, splits.reserve, Fitter(tiny("digits"), store, CPU, 0), torch.Generator())
    assert torch.equal(case.clean(10).ids, splits.reserve.ids[:10])
    case.clean(5)
    assert case.findings.clean_used == 10
    assert len(case.clean(10_000)) == 60
    assert case.findings.clean_used == 60


def test_a_defense_that_writes_on_the_training_set_is_caught(store: Store) -> None:
    @options
    class Scribbler(Defense):
        def defend(self, case: Case) -> Any:
            case.train.inputs[0] += 1  # type: ignore[index, operator]
            return case.fit(case.train)

    @options
    class Clumsy(Scribbler):
        def defend(self, case: Case) -> Any:
            super().defend(case)
            raise KeyError("an error of its own")

    attack, before = plug("attacks", "badnets"), tiny("digits").load().train.fingerprint
    for defense, error in ((Scribbler(), BrokenDefense), (Clumsy(), KeyError)):
        with pytest.raises(error, match=r"test_cell changed case\.train in place|an error of its own"):
            run_steps(tiny("digits"), attack, 2, defense, 0, store, CPU)
        result = run_steps(tiny("digits"), attack, 0, plug("defenses", "none"), 0, store, CPU)
        assert result.dataset == before[:32], "the next cell gets clean data again"


def test_only_the_suites_own_oracle_is_told_the_poison(store: Store) -> None:
    @options
    class Copy(Oracle):
        pass

    Copy.name = "oracle"
    task = tiny("digits")
    splits, fit = task.load(), Fitter(task, store, CPU, 0)
    poisoned = make_poisoned(plug("attacks", "badnets"), Scene(task, splits.train, fit, CPU), 5, 0)
    case = case_for(Oracle(), poisoned, splits.reserve, fit, torch.Generator())
    assert torch.equal(case.poisoned, poisoned.mask)  # type: ignore[attr-defined]
    assert not hasattr(case_for(Copy(), poisoned, splits.reserve, fit, torch.Generator()), "poisoned")
    with pytest.raises(AttributeError, match="poisoned"):
        run_steps(task, plug("attacks", "badnets"), 5, Copy(), 0, store, CPU)
    with pytest.raises(Broken, match="poisoned"):
        check_defense(Copy(), task)


def test_a_fresh_victim_every_time(store: Store) -> None:
    fit = Fitter(tiny("digits"), store, CPU, 0)
    first = fit(tiny("digits").load().train)
    with torch.no_grad():
        first.module.head.weight.zero_()
    assert fit(tiny("digits").load().train).module.head.weight.abs().sum() > 0


def test_training_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    task = tiny("digits")
    train_victim(task, task.load().train, recipe=task.recipe(), seed=0, device=CPU)
    assert torch.equal(torch.rand(3), expected)


def test_divergence_and_empty_sets_are_named() -> None:
    task = tiny("digits")
    train = task.load().train

    def burst(module: Any, batch: Batch) -> Tensor:
        return module(batch.x).sum() * float("inf")

    with pytest.raises(Diverged, match="not finite"):
        train_victim(task, train, recipe=task.recipe(), seed=0, device=CPU, loss=burst)
    with pytest.raises(BadInput, match="empty"):
        train_victim(task, train.select([]), recipe=task.recipe(), seed=0, device=CPU)


def test_a_head_on_cached_features_is_not_compiled() -> None:
    task = tiny("digits")
    recipe = replace(task.recipe(), frozen="body", augment=False)
    plain, compiled = (
        train_victim(task, task.load().train, recipe=recipe, seed=0, device=CPU, speedup=s) for s in ("none", "compile")
    )
    assert torch.equal(plain.module.head.weight, compiled.module.head.weight)


class Misbehaving(TriggerAttack[Tensor]):
    how: str = ""

    def stamp(self, scene: Scene, inputs: Any, rng: torch.Generator) -> Any:
        return inputs.float() if self.how == "dtype" else inputs[:, :, 1:] if self.how == "shape" else inputs

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        poison = super().poison(scene, dose, rng)
        if self.how == "count":
            return Poison(poison.samples.select(range(dose - 1)), poison.replaces)
        if self.how == "label":
            return Poison(Samples(poison.samples.inputs, poison.samples.targets + 90, poison.samples.ids))
        if self.how == "relabel":
            return Poison(
                Samples(poison.samples.inputs, poison.samples.targets + 1, poison.samples.ids), poison.replaces
            )
        return poison


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("dtype", r"inputs are torch.float32"),
        ("shape", r"expected torch.uint8"),
        ("count", r"asked for 3 poisons, got 2"),
        ("label", r"a label of the poison is not in 0 to 9.*row 0 has 90"),
        ("relabel", r"is clean-label but changed a label"),
    ],
)
def test_what_an_attack_returns_is_checked(how: str, message: str, store: Store) -> None:
    attack = Misbehaving(clean_label=how == "relabel")
    object.__setattr__(attack, "how", how)
    task = tiny("digits")
    scene = Scene(task, task.load().train, Fitter(task, store, CPU, 0), CPU)
    with pytest.raises(BrokenAttack, match=message):
        craft_poison(attack, scene, 3, torch.Generator().manual_seed(0))
    with pytest.raises(BadInput, match="dose=-1"):
        craft_poison(attack, scene, -1, torch.Generator().manual_seed(0))


# --- metrics -----------------------------------------------------------------------------------------------------


def outputs(answers: list[int], abstained: list[int] | None = None, **more: Any) -> Outputs:
    mask = torch.tensor(abstained or [0] * len(answers)).bool()
    return Outputs(torch.nn.functional.one_hot(torch.tensor(answers), 3).float(), mask, **more)


def samples(targets: list[int]) -> Samples:
    n = len(targets)
    return Samples(torch.zeros(n, 1, 2, 2, dtype=torch.uint8), torch.tensor(targets), torch.arange(n))


def test_asr_counts_abstentions_against_the_attacker() -> None:
    task = tiny("digits")
    challenge = Challenge(samples([1, 1, 2, 2]), torch.zeros(4, dtype=torch.int64), torch.tensor([1, 1, 2, 2]))
    found = metrics.grade_attack(task, outputs([0, 0, 2, 0], [0, 1, 0, 0]), challenge)
    assert found["asr"] == metrics.Metric(0.5, 4)
    assert found["robust_accuracy"] == metrics.Metric(0.25, 4)
    assert found["challenge_abstained"] == metrics.Metric(0.25, 4)


def test_an_abstention_is_an_error_on_clean_data() -> None:
    found = metrics.grade_clean(tiny("digits"), outputs([0, 1, 2, 1], [0, 0, 1, 0]), samples([0, 1, 2, 2]))
    assert found["utility"] == metrics.Metric(0.5, 4)
    assert found["clean_abstained"] == metrics.Metric(0.25, 4)


def test_certified_accuracy_needs_the_right_answer() -> None:
    given = outputs([0, 1, 2, 1], radius=torch.tensor([3, 0, 1, 9]))
    found = metrics.grade_clean(tiny("digits"), given, samples([0, 1, 2, 2]))
    assert found["certified_accuracy_at_1"].value == 0.5
    assert found["certified_accuracy_at_2"].value == 0.25


def test_detection_metrics() -> None:
    poisoned = torch.tensor([1, 1, 0, 0, 0]).bool()
    found = metrics.grade_detection(
        torch.tensor([0.9, 0.4, 0.5, 0.1, 0.0]), torch.tensor([1, 0, 1, 0, 0]).bool(), poisoned
    )
    assert found["train_auroc"].value == pytest.approx(5 / 6)
    assert found["train_tpr"] == metrics.Metric(0.5, 2)
    assert found["train_fpr"].value == pytest.approx(1 / 3)
    assert found["train_precision"] == metrics.Metric(0.5, 2)
    at_zero = metrics.grade_detection(torch.rand(5), torch.ones(5).bool(), torch.zeros(5).bool())
    assert set(at_zero) == {"train_fpr"}, "without poison there is nothing to find"
    none = metrics.grade_detection(None, torch.zeros(5).bool(), poisoned)
    assert set(none) == {"train_fpr", "train_tpr"}, "where nothing is flagged there is no precision"
    everything = metrics.grade_detection(torch.rand(5), torch.ones(5).bool(), torch.ones(5).bool())
    assert set(everything) == {"train_tpr", "train_precision"}, "where all is poison there is no false alarm"
    with pytest.raises(ValueError, match="no entries"):
        metrics.mean(torch.zeros(0).bool())


@pytest.mark.parametrize("target", [0, 2])
def test_a_challenge_without_inputs_is_refused_by_name(target: int, store: Store) -> None:
    """Here a test set that holds the target class alone."""
    task, attack = tiny("digits"), create("attacks", "badnets", {"target": target})
    scene = Scene(task, task.load().train, Fitter(task, store, CPU, 0), CPU)
    test = task.load().test
    with pytest.raises(BadInput, match=f"badnets: its challenge is empty: .* no row outside target={target} "):
        make_challenge(attack, scene, test.select(test.targets == target), 0)  # type: ignore[arg-type]


def test_guards_and_ensembles() -> None:
    class Fixed:
        def __init__(self, answers: list[int]) -> None:
            self.answers = answers

        def predict(self, rows: Samples) -> Outputs:
            return outputs([self.answers[i] for i in rows.ids.tolist()])

    rows = samples([0, 1, 2])
    guard = Guarded(Fixed([0, 1, 2]), screen=lambda s: s.ids.float(), threshold=1.0)
    assert guard.predict(rows).answers.tolist() == [0, 1, -1]
    assert guard.predict(rows).suspicion.tolist() == [0, 1, 2]  # type: ignore[union-attr]
    vote = Ensemble([Fixed([0, 1, 2]), Fixed([0, 2, 1]), Fixed([0, 1, 1])], turned=2).predict(rows)
    assert vote.answers.tolist() == [0, 1, 1]
    assert vote.radius.tolist() == [0, 0, 0]  # type: ignore[union-attr]
    alike = Ensemble([Fixed([0, 1, 2])] * 5, turned=2).predict(rows)
    assert alike.radius.tolist() == [1, 1, 1], "two rows may change, which one poison in a clean row's place does"  # type: ignore[union-attr]


def test_ties_favour_no_class() -> None:
    """A vote of two models that never agree, on texts that differ: each class wins about half of them."""

    class Always:
        def __init__(self, answer: int) -> None:
            self.answer = answer

        def predict(self, rows: Samples) -> Outputs:
            return outputs([self.answer] * len(rows))

    texts = Samples([f"text {i}" for i in range(400)], torch.zeros(400).long(), torch.arange(400))
    vote = Ensemble([Always(0), Always(1)], turned=2).predict(texts)
    assert 150 < (vote.answers == 0).sum() < 250
    assert torch.equal(vote.answers, Ensemble([Always(1), Always(0)]).predict(texts).answers), "the input decides"
    assert not vote.radius.any()  # type: ignore[union-attr]


# --- how cells end -----------------------------------------------------------------------------------------------


@options
class Ends(Defense):
    """Ends in the way its option says."""

    how: str = ""

    def defend(self, case: Case) -> Any:
        if self.how == "raise":
            raise ZeroDivisionError("one over none")
        if self.how == "memory":
            raise MemoryError
        if self.how == "not applicable":
            raise NotApplicable("no such idea here")
        if self.how == "input":
            case.clean(0)
        if self.how == "nan":
            case.fit(case.train, lr=1e30, optimizer="sgd", schedule="constant")
        if self.how == "sleep":
            time.sleep(30)
        return case.fit(case.train)


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ("", "done", ""),
        ("raise", "failed", "ZeroDivisionError: one over none"),
        ("memory", "failed", "out of memory"),
        ("not applicable", "not applicable", "no such idea here"),
        ("input", "failed", "test_cell: clean(n=0): ask for 1 row or more"),
        ("nan", "failed", "Diverged: the training loss is not finite"),
        ("sleep", "timed out", "more than 2 s (the grid's `timeout`)"),
    ],
)
def test_every_end_becomes_a_record(
    how: str, status: str, reason: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = record_cell._plugin
    small = tiny("digits")

    def plugin(kind: str, spec: Spec) -> Any:
        return {"tasks": small, "defenses": Ends(how=how)}.get(kind) or real(kind, spec)

    monkeypatch.setattr(record_cell, "_plugin", plugin)
    cell = Cell("a" * 32, Spec("digits"), Spec("badnets"), 2, Spec("none"), 0)
    small.load()
    record = run_cell(cell, Settings(store=str(store.root), timeout=2.0 if how == "sleep" else 100.0), CPU)
    assert record.status == status
    assert record.reason.startswith(reason)
    assert ("Traceback" in record.traceback) == (how in ("raise", "memory", "nan"))
    assert record.provenance["libraries"]["torch"]
    assert record.seconds["total"] > 0
    if status == "done":
        assert record.metrics["utility"].n == 40
        assert record.train_size == 120


def test_a_dose_above_the_pool_names_the_pool(store: Store) -> None:
    cell = Cell("a" * 32, Spec("digits"), Spec("badnets"), 99999, Spec("none"), 0)
    record = run_cell(cell, Settings(store=str(store.root)), CPU)
    assert record.status == "failed"
    assert "the eligible pool of badnets on digits has " in record.reason


def test_a_defense_for_another_modality_is_not_applicable(store: Store) -> None:
    assert isinstance(plug("attacks", "badnets"), Attack)
    with pytest.raises(NotApplicable, match="badnets is for image: the trigger is a patch of pixels"):
        check_applies(tiny("synthetic_tones"), plug("attacks", "badnets"), plug("defenses", "none"))
