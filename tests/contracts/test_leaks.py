"""A defense sees what its threat model grants: these tests try to reach the rest."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from helpers import EXAMPLES, tiny
from torch import Tensor

from attacks.base import Attack, Poison, Scene
from defenses.base import Case, Defense
from harness.cell.case import CellCase, Fitter
from harness.cell.metrics import auroc
from harness.cell.poison import Poisoned, inject
from harness.cell.steps import make_poisoned, run_steps
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.audio import to_16_bit
from tasks.base import sealed
from tasks.plugin import options
from tasks.samples import Challenge, Samples, Splits


def reachable(root: object) -> Iterator[object]:
    """Everything that attributes, items, closures and bound methods lead to."""
    seen: set[int] = set()
    todo: list[object] = [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type) or type(thing).__name__ == "module":
            continue
        seen.add(id(thing))
        yield thing
        if isinstance(thing, dict):
            todo += [*thing.keys(), *thing.values()]
        elif isinstance(thing, list | tuple | set | frozenset):
            todo += list(thing)
        elif isinstance(thing, partial):
            todo += [thing.func, thing.args, thing.keywords]
        todo += [getattr(thing, "__self__", None), getattr(thing, "__wrapped__", None)]
        todo += [c.cell_contents for c in getattr(thing, "__closure__", None) or ()]
        todo += list(getattr(thing, "__defaults__", None) or ())
        if not isinstance(thing, Tensor | str | int | float):
            todo += list(getattr(thing, "__dict__", {}).values())


def make_case(task_name: str, store: Store, dose: int = 5) -> tuple[CellCase, Poisoned, Splits]:
    task = tiny(task_name)
    splits = task.load()
    attack = create("attacks", task.plain_attack)
    assert isinstance(attack, Attack)
    poisoned = make_poisoned(attack, Scene(task, splits.train, Fitter(task, store, CPU, 7), CPU), dose, 0)
    rng = torch.Generator().manual_seed(0)
    return CellCase(poisoned.train, splits.reserve, Fitter(task, store, CPU, 0), rng), poisoned, splits


@pytest.mark.parametrize("task_name", EXAMPLES.values())
def test_truth_is_not_reachable_from_case(task_name: str, store: Store) -> None:
    case, poisoned, splits = make_case(task_name, store)
    case.fit(case.train)  # also what a fit leaves behind
    poisoned_ids = set(poisoned.train.ids[poisoned.mask].tolist())
    hidden = {splits.test.fingerprint, splits.train.fingerprint}
    for thing in reachable(case):
        assert not isinstance(thing, Poison | Poisoned | Splits | Challenge), type(thing)
        if isinstance(thing, Samples):
            assert thing.fingerprint not in hidden, "test set or clean training set"
        if isinstance(thing, Tensor) and thing.shape == poisoned.mask.shape:
            assert not torch.equal(thing.bool(), poisoned.mask), "the poison mask"
        if isinstance(thing, Tensor) and thing.dtype == torch.int64 and thing.numel() == len(poisoned_ids):
            assert set(thing.flatten().tolist()) != poisoned_ids, "the poisoned ids"


def test_the_walk_finds_what_is_planted(store: Store) -> None:
    """The test above can fail: a mask behind a closure of a bound method is found."""
    case, poisoned, _ = make_case("digits", store)
    mask = poisoned.mask
    case.fit = lambda: mask  # type: ignore[assignment]
    assert any(thing is mask for thing in reachable(case))


@options
class Thief(Defense):
    """A defense that loads the test set through its task."""

    def defend(self, case: Case) -> Any:
        return case.task.load().test


@options
class IndirectThief(Defense):
    """A defense that builds the task anew to load the test set."""

    def defend(self, case: Case) -> Any:
        return create("tasks", case.task.name).load().test  # type: ignore[attr-defined]


@pytest.mark.parametrize("thief", [Thief(), IndirectThief()])
def test_loading_data_is_refused_while_a_defense_runs(thief: Defense, store: Store) -> None:
    with pytest.raises(PermissionError, match=r"case\.train and case\.clean"):
        run_steps(tiny("digits"), create("attacks", "badnets"), 2, thief, 0, store, CPU)  # type: ignore[arg-type]
    tiny("digits").load()  # open again afterwards


@pytest.mark.parametrize("task_name", EXAMPLES.values())
def test_case_carries_no_sealed_data_by_attribute(task_name: str, store: Store) -> None:
    case, _, _ = make_case(task_name, store)
    public = {name for name in dir(case) if not name.startswith("_")}
    assert public == {"train", "task", "fit", "clean", "rng", "device", "report", "save", "findings"}
    with sealed(), pytest.raises(PermissionError):
        case.task.load()


def test_only_the_oracle_gets_the_mask(store: Store) -> None:
    @options
    class Oracle(Defense):  # the name alone must not be enough
        def defend(self, case: Case) -> Any:
            assert not hasattr(case, "poisoned")
            return case.fit(case.train)

    result = run_steps(tiny("digits"), create("attacks", "badnets"), 2, Oracle(), 0, store, CPU)  # type: ignore[arg-type]
    assert "asr" in result.metrics


@pytest.mark.parametrize("replace", [True, False])
def test_position_and_id_predict_poison_no_better_than_chance(replace: bool) -> None:
    n, dose, scores = 200, 20, []
    for seed in range(40):
        rng = torch.Generator().manual_seed(seed)
        train = Samples(torch.zeros(n, 1, 2, 2, dtype=torch.uint8), torch.zeros(n, dtype=torch.int64), torch.arange(n))
        chosen = torch.randperm(n, generator=rng)[:dose]
        rows = Samples(torch.ones(dose, 1, 2, 2, dtype=torch.uint8), torch.zeros(dose, dtype=torch.int64), chosen)
        poisoned = inject(train, Poison(rows, rows.ids if replace else None), rng)
        assert int(poisoned.mask.sum()) == dose
        assert (poisoned.train.inputs[poisoned.mask] == 1).all()  # type: ignore[index]
        assert len(poisoned.train.ids.unique()) == len(poisoned.train)
        for clue in (torch.arange(len(poisoned.train)), poisoned.train.ids):
            scores.append(auroc(clue.float(), poisoned.mask).value)
    # The mean of 80 AUROCs with 20 positives each has a standard error below 0.01 under chance.
    assert abs(sum(scores) / len(scores) - 0.5) < 0.04


@pytest.mark.parametrize("task_name", EXAMPLES.values())
def test_encoding_does_not_tell_poison_from_clean(task_name: str, store: Store) -> None:
    _, poisoned, splits = make_case(task_name, store)
    inputs = poisoned.train.inputs
    if isinstance(inputs, list):
        assert {type(t) for t in inputs} == {str}
    else:
        assert inputs.dtype == splits.train.inputs.dtype  # type: ignore[union-attr]
        if inputs.dtype == torch.float32:  # recordings lie on the 16-bit grid, so must poison
            assert torch.equal(to_16_bit(inputs), inputs)
            assert torch.equal(to_16_bit(splits.train.inputs), splits.train.inputs)  # type: ignore[arg-type]
