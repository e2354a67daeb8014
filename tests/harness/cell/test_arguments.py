"""What a defense hands to its case: taken as meant, or refused at the call in one line that names the defense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny
from torch import Tensor

from defenses.base import Defense
from harness.cell.arguments import MOST_SAVED, change_recipe, check_loss
from harness.cell.case import CellCase, Fitter, case_for
from harness.cell.poison import Poisoned
from harness.cell.train import train_victim
from harness.errors import Diverged
from harness.run.record_cell import _save_finding
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.base import Batch
from tasks.plugin import BadInput, options
from tasks.samples import Samples

NAN, INF = float("nan"), float("inf")
N = 120  # training rows of the small task


@options
class Talker(Defense):
    """Hands over what a test says."""


@pytest.fixture
def case(store: Store) -> CellCase:
    task = tiny("digits")
    splits = task.load()
    poisoned = Poisoned(splits.train, torch.zeros(N, dtype=torch.bool))
    return case_for(Talker(), poisoned, splits.reserve, Fitter(task, store, CPU, 0), torch.Generator())


def refused(complaint: str) -> Any:
    return pytest.raises(BadInput, match=rf"^test_arguments: [^\n]*{complaint}[^\n]*$")


def rows(value: float = 0.0, n: int = N, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full((n,), value, dtype=dtype)


@pytest.mark.parametrize(
    ("report", "complaint"),
    [
        ({"train": rows(NAN)}, r"report\(train=\) is NaN for 120 of 120 rows"),
        ({"train": rows(0, N - 1)}, r"report\(train=\): shape \(119,\), expected a tensor of shape \(120,\)"),
        ({"train": rows()[:, None]}, r"shape \(120, 1\)"),
        ({"train": torch.tensor(1.0)}, r"shape \(\)"),
        ({"train": [0.0] * N}, r"report\(train=\): a list, expected a tensor"),
        ({"train": rows().numpy()}, r"report\(train=\): a ndarray"),
        ({"train": 0.5}, r"report\(train=\): a float"),
        ({"train": rows(0, dtype=torch.bool)}, r"report\(train=\): bool .*`flagged` takes a mask"),
        ({"train": rows(0, dtype=torch.complex64)}, r"report\(train=\): complex64"),
        ({"train": rows(1e300, dtype=torch.float64)}, r"report\(train=\): float64 .* is beyond float32"),
        ({"flagged": rows(-0.9)}, r"report\(flagged=\): float32 .*of scores say `scores > threshold`"),
        ({"flagged": rows(1, dtype=torch.int64)}, r"report\(flagged=\): int64 "),
        ({"flagged": torch.arange(N)}, r"report\(flagged=\): int64 "),
        ({"flagged": torch.tensor([3, 7])}, r"report\(flagged=\): shape \(2,\)"),
        ({"flagged": [True] * N}, r"report\(flagged=\): a list"),
        ({"flagged": True}, r"report\(flagged=\): a bool"),
        ({"model": NAN}, r"report\(model=nan\): expected one finite number"),
        ({"model": INF}, r"report\(model=inf\)"),
        ({"model": -INF}, r"report\(model=-inf\)"),
        ({"model": torch.tensor(INF)}, r"report\(model=inf\)"),
        ({"model": torch.ones(3)}, r"report\(model=float32 \(3,\)"),
        ({"model": True}, r"report\(model=True\)"),
        ({"model": torch.tensor(True)}, r"report\(model=bool \(\)"),
        ({"model": "0.5"}, r"report\(model='0.5'\)"),
        ({"model": [0.5]}, r"report\(model=a list\)"),
        ({"model": np.float32("nan")}, r"report\(model=nan\)"),
        ({"target": 10}, r"report\(target=10\): expected the number of a class of digits, 0 to 9"),
        ({"target": -1}, r"report\(target=-1\)"),
        ({"target": 3.0}, r"report\(target=3.0\)"),
        ({"target": 3.7}, r"report\(target=3.7\)"),
        ({"target": NAN}, r"report\(target=nan\)"),
        ({"target": "seven"}, r"report\(target='seven'\)"),
        ({"target": True}, r"report\(target=True\)"),
        ({"target": torch.tensor([1, 2])}, r"report\(target='int64 \(2,\)"),
        ({"target": torch.tensor(1.0)}, r"report\(target='float32 \(\)"),
    ],
)
def test_a_report_that_means_nothing_is_refused(report: dict[str, Any], complaint: str, case: CellCase) -> None:
    with refused(complaint):
        case.report(**report)
    found = case.findings
    assert found.train is found.flagged is found.model is found.target is None


def test_a_report_is_taken_as_meant_and_kept_as_it_was(case: CellCase) -> None:
    scores, flags = rows(1), rows(0, dtype=torch.bool)
    scores[:2] = torch.tensor([INF, -INF])  # which can be ordered
    case.report(train=scores, flagged=flags, model=np.float32(0.25), target=np.int64(3))  # type: ignore[arg-type]
    scores.fill_(NAN)
    flags.fill_(True)
    found = case.findings
    assert found.train is not None
    assert found.flagged is not None
    assert found.train[:3].tolist() == [INF, -INF, 1]
    assert not found.flagged.any()
    assert (found.model, found.target) == (0.25, 3)
    case.report(train=torch.arange(N).double().requires_grad_(), model=torch.tensor([2]), target=torch.tensor(9))  # type: ignore[arg-type]
    assert torch.equal(found.train, torch.arange(N).float())
    assert not found.train.requires_grad
    assert (found.model, found.target) == (2.0, 9)


@pytest.mark.parametrize("n", [0, -3, 2.5, 5.0, True, "5", None, NAN, INF, torch.tensor(2.0), torch.tensor([2, 3])])
def test_clean_rows_are_asked_for_by_a_whole_number(n: Any, case: CellCase) -> None:
    with refused(r"clean\(n=.*\): ask for 1 row or more"):
        case.clean(n)
    assert case.findings.clean_used == 0


def test_any_integer_asks_for_clean_rows(case: CellCase) -> None:
    counts = (2, np.int32(3), torch.tensor(4), 10**30)
    assert [len(case.clean(n)) for n in counts] == [2, 3, 4, 60]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("a b", torch.ones(3), r"save\(name='a b'\): use up to 60 letters"),
        ("../mask", torch.ones(3), "use up to 60 letters"),
        ("x" * 300, torch.ones(3), "use up to 60 letters"),
        ("masqué", torch.ones(3), "use up to 60 letters"),
        (3, torch.ones(3), "use up to 60 letters"),
        ("near", torch.ones(3), "use another name"),
        ("mask", torch.ones(0, 4), r"save\('mask'\): 0 numbers, valid: 1 to 16,000,000"),
        ("mask", torch.ones(1).expand(MOST_SAVED + 1), r"save\('mask'\): 16,000,001 numbers"),
        ("mask", [1.0], r"save\('mask'\): got a list"),
        ("mask", None, r"save\('mask'\): got nothing"),
        ("mask", torch.ones(3, dtype=torch.complex64), r"save\('mask'\): got complex64"),
    ],
)
def test_a_finding_that_cannot_be_kept_is_refused(name: Any, value: Any, complaint: str, case: CellCase) -> None:
    with refused(complaint):
        case.save(name, value)
    assert not case.findings.saved


def few(**changes: Any) -> Samples:
    return replace(tiny("digits").load().train.select(range(12)), **changes)


def targets(value: int | float = 0, n: int = 12, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.full((n,), value, dtype=dtype)


def pixels(dtype: torch.dtype, n: int = 12) -> Tensor:
    return torch.zeros(n, 1, 8, 8, dtype=dtype)


@pytest.mark.parametrize(
    ("samples", "complaint"),
    [
        (lambda: None, "samples is nothing, expected a tasks.samples.Samples"),
        (lambda: (few().inputs, few().targets), "samples is a tuple"),
        (lambda: few().select([]), r"the training set is empty \(a filter dropped every row\)"),
        (lambda: few(targets=targets(10)), "a label of samples is not in 0 to 9, as `classes` says: row 0 has 10"),
        (lambda: few(targets=targets(-1)), "row 0 has -1"),
        (lambda: few(targets=targets(1.0, dtype=torch.float32)), r"targets of samples are float32 \(12,\)"),
        (lambda: few(targets=targets(1, dtype=torch.int32)), r"targets of samples are int32"),
        (lambda: few(targets=targets(n=7)), "samples has 12 inputs, 7 targets and 12 ids"),
        (lambda: few(inputs=pixels(torch.uint8, 5)), "samples has 5 inputs, 12 targets"),
        (lambda: few(ids=torch.arange(3)), "12 targets and 3 ids"),
        (lambda: few(inputs=pixels(torch.float32)), "inputs of samples are float32 .*a task for image has uint8"),
        (lambda: few(inputs=pixels(torch.float32) * NAN), "NaN or infinite in 12 of 12 rows, the first is row 0"),
        (lambda: few(inputs=["a"] * 12), "inputs of samples are a list"),
        (lambda: few(targets=torch.full((12, 10), NAN)), r"targets of samples are float32 \(12, 10\)"),
        (lambda: few(targets=torch.full((12, 3), 0.3)), r"expected finite \(N, 10\)"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(samples: Callable[[], Any], complaint: str, case: CellCase) -> None:
    with refused(f"fit: .*{complaint}"):
        case.fit(samples())
    assert not case.fit.fits


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"epochs": 0}, "epochs=0: Input should be greater than 0"),
        ({"epochs": -2}, "epochs=-2"),
        ({"epochs": True}, "epochs=True: expected a finite number"),
        ({"epochs": 2.5}, "epochs=2.5"),
        ({"epochs": None}, "epochs=None"),
        ({"lr": NAN}, "lr=nan: expected a finite number"),
        ({"lr": INF}, "lr=inf"),
        ({"lr": 0}, "lr=0"),
        ({"lr": -1e-3}, "lr=-0.001"),
        ({"lr": "fast"}, "lr='fast'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"weight_decay": NAN}, "weight_decay=nan"),
        ({"optimizer": "adam"}, "optimizer='adam': Input should be 'adamw' or 'sgd'"),
        ({"frozen": True}, "frozen=True"),
        ({"augment": "no"}, "augment='no': expected True or False"),
        ({"augment": 2}, "augment=2"),
        ({"dp_clip": True}, "dp_clip=True"),
        ({"dp_noise": NAN}, "dp_noise=nan"),
        ({"epoch": 3}, "unknown recipe field 'epoch'"),
        ({"seed": 1.5}, "seed=1.5: expected a whole number"),
        ({"seed": True}, "seed=True"),
        ({"seed": 2**64}, "seed=18446744073709551616"),
        ({"seed": "0"}, "seed='0'"),
        ({"init": "victim"}, "init is a str, expected a victim"),
        ({"loss": 3}, "loss is a int, expected"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(changes: dict[str, Any], complaint: str, case: CellCase) -> None:
    with refused(f"fit: .*{complaint}"):
        case.fit(few(), **changes)


def test_a_recipe_changes_as_asked() -> None:
    recipe = tiny("digits").recipe()
    changed = change_recipe(recipe, {"epochs": 3, "lr": 1, "augment": False, "dp_clip": None, "frozen": "body"})
    assert (changed.epochs, changed.lr, changed.augment, changed.frozen) == (3, 1.0, False, "body")
    assert change_recipe(recipe, {}) == recipe


def soft_loss(module: Any, batch: Batch) -> Tensor:
    return torch.nn.functional.cross_entropy(module(batch.x).float(), batch.y, reduction="none")


def test_soft_labels_and_seeds_of_any_integer_are_taken(case: CellCase) -> None:
    shares = torch.full((12, 10), 0.1)
    case.fit(few(targets=shares), seed=np.int64(3), epochs=1)  # type: ignore[arg-type]
    assert len(case.fit.fits) == 1


LOSSES: dict[str, Callable[[Any, Tensor], Any]] = {
    "None": lambda x, loss: None,
    "number": lambda x, loss: 0.5,
    "detached": lambda x, loss: loss.detach(),
    "wide": lambda x, loss: loss[:, None].expand(-1, 3),
    "short": lambda x, loss: loss[:-1],
    "whole": lambda x, loss: (loss * 10).long(),
    "pair": lambda x, loss: (loss, x),
}


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("None", "returned nothing"),
        ("number", "returned a float"),
        ("detached", r"returned float32 \(12,\) .* without gradients"),
        ("wide", r"returned float32 \(12, 3\)"),
        ("short", r"returned float32 \(11,\)"),
        ("whole", r"returned int64 \(12,\)"),
        ("pair", "returned a tuple"),
    ],
)
def test_a_loss_that_teaches_nothing_is_named(how: str, complaint: str) -> None:
    def own(change: Callable[[Any, Tensor], Any], module: Any, batch: Batch) -> Any:
        return change(batch.x, soft_loss(module, batch))

    task, loss = tiny("digits"), partial(own, LOSSES[how])
    with pytest.raises(BadInput, match=rf"^fit: loss=own {complaint}.*, expected float \(12,\) or one number"):
        train_victim(task, few(), recipe=task.recipe(), seed=0, device=CPU, loss=loss)


def test_a_loss_that_is_no_number_is_named() -> None:
    def burst(module: Any, batch: Batch) -> Tensor:
        return soft_loss(module, batch) * NAN

    task = tiny("digits")
    with pytest.raises(Diverged, match=r"not finite after 1 steps \(lr=0.01, epochs=1, loss=burst\)"):
        train_victim(task, few(), recipe=task.recipe(), seed=0, device=CPU, loss=burst)
    assert check_loss(torch.ones((), requires_grad=True), 12, burst) == 1, "one number is a loss"


@pytest.mark.parametrize(
    ("tensor", "files"),
    [
        (torch.rand(3, 8, 8), {"x", "x.png"}),
        (torch.rand(8, 8), {"x", "x.png"}),
        (255 * torch.rand(3, 8, 8), {"x"}),
        (torch.full((8, 8), NAN), {"x"}),
        (torch.tensor([1, INF, NAN]), {"x", "x.values.json"}),
    ],
)
def test_only_numbers_in_0_to_1_are_shown_as_a_picture(tensor: Tensor, files: set[str], store: Store) -> None:
    assert set(_save_finding(store, "0" * 31 + "a", "x", tensor)) == files
