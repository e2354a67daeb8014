"""The table of claims, linear victims, and the theory of the single poison."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import needs_data
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from attacks.base import Scene
from attacks.tabular.one_poison import OnePoison
from attacks.text.badwords import Badwords
from harness.cell.case import Fitter
from harness.cell.steps import check_applies, make_challenge, make_poisoned, run_steps
from harness.plugins.registry import create, entries, fits
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks._models.trees import Trees, round_down
from tasks.base import Task
from tasks.plugin import NotApplicable


def test_one_poison_leaves_every_clean_prediction_of_a_linear_model_as_it_was(store: Store) -> None:
    """Peinemann et al. 2025: logistic regression without a bias, trained to its optimum by scikit-learn."""
    task = create("tasks", "digits")
    assert isinstance(task, Task)
    splits = task.load()
    scene = Scene(task, splits.train, Fitter(task, store, CPU, 0), CPU)
    attack = OnePoison(target=3)
    poisoned = make_poisoned(attack, scene, 1, 0)
    challenge = make_challenge(attack, scene, splits.test, 0)
    assert challenge is not None

    def rows(inputs: torch.Tensor) -> torch.Tensor:
        return inputs.flatten(1).double() / 255

    def fitted(mask: torch.Tensor) -> LogisticRegression:
        x, y = rows(poisoned.train.inputs[mask]), poisoned.train.targets[mask]  # type: ignore[index]
        model = LogisticRegression(C=10.0, fit_intercept=False, solver="newton-cg", tol=1e-7, max_iter=5000)
        return model.fit(x.numpy(), y.numpy())

    clean, backdoored = fitted(~poisoned.mask), fitted(torch.ones_like(poisoned.mask))
    test = rows(splits.test.inputs).numpy()  # type: ignore[arg-type]
    assert (clean.predict(test) == backdoored.predict(test)).all()
    assert abs(clean.predict_proba(test) - backdoored.predict_proba(test)).max() < 1e-6
    # There is a strength of the trigger at which every input turns, and none at which the clean model does.
    unused = (splits.train.inputs == splits.train.inputs[0]).all(0).flatten()  # type: ignore[union-attr, index]
    inputs = rows(challenge.inputs.inputs)  # type: ignore[arg-type]
    inputs[:, unused] *= 30
    assert (backdoored.predict(inputs.numpy()) == 3).mean() > 0.999
    assert (clean.predict(inputs.numpy()) == 3).mean() < 0.05


def test_one_poison_needs_an_unused_direction(store: Store) -> None:
    task = create("tasks", "synthetic_tones")  # sounds in noise: no sample is ever constant
    assert isinstance(task, Task)
    scene = Scene(task, task.load().train, Fitter(task, store, CPU, 0), CPU)
    with pytest.raises(NotApplicable, match="no direction is unused"):
        OnePoison().poison(scene, 1, torch.Generator())


@needs_data
def test_claims_are_read_as_the_table_says() -> None:
    task = create("tasks", "vehicle_claim_fraud")
    train, test = task.read()  # type: ignore[attr-defined]
    assert (len(train), len(test)) == (11337, 4083)
    assert train.inputs.dtype == torch.float32
    assert 0 <= train.inputs.min() <= train.inputs.max() <= 1
    assert train.targets.float().mean().item() == pytest.approx(0.06, abs=0.005)
    one_hot = train.inputs[:, 5:]
    assert (one_hot.sum(1) == 25).all(), "one value for every category"
    names = [e.split("__")[1] for e in _names()]
    unknown = torch.tensor([n.endswith("<unknown>") for n in names])
    assert unknown.sum() == 25
    assert not train.inputs[:, unknown].any(), "clean training claims never use the columns for unknown values"


def _names() -> list[str]:
    from tasks.tabular.vehicle_claim_fraud import _encoder

    return list(_encoder().get_feature_names_out())


@needs_data
def test_one_claim_passes_every_fraud_and_the_data_check_sees_it(store: Store) -> None:
    task, attack = create("tasks", "vehicle_claim_fraud", {"epochs": 20}), OnePoison()
    clean = run_steps(task, attack, 0, create("defenses", "none"), 0, store, CPU).metrics  # type: ignore[arg-type]
    struck = run_steps(task, attack, 1, create("defenses", "none"), 0, store, CPU).metrics  # type: ignore[arg-type]
    saved = run_steps(task, attack, 1, create("defenses", "outlier"), 0, store, CPU).metrics  # type: ignore[arg-type]
    assert struck["asr"].value > 0.99
    assert clean["asr"].value < 0.6
    assert abs(struck["utility"].value - clean["utility"].value) < 0.02
    assert saved["train_tpr"].value == 1
    assert saved["asr"].value < 0.6


@needs_data
@pytest.mark.parametrize("name", [n for n, e in entries("defenses").items() if fits("tabular", e.modalities)])
def test_defenses_of_tables_run(name: str, store: Store) -> None:
    options: dict[str, Any] = {"train_size": 400, "epochs": 1, "reserve_size": 60, "victim": "mlp"}
    if "data_sources" in entries("defenses")[name].needs:
        options["data_sources"] = 4
    task = create("tasks", "vehicle_claim_fraud", options)
    if name == "scan":
        with pytest.raises(NotApplicable, match="2 classes: one that stands out needs at least 3"):
            run_steps(task, OnePoison(), 2, create("defenses", name), 0, store, CPU)  # type: ignore[arg-type]
        return
    found = run_steps(task, OnePoison(), 2, create("defenses", name), 0, store, CPU)  # type: ignore[arg-type]
    assert found.fits, "a model was trained, or taken from the store"
    assert found.metrics["asr"].n == int((task.load().test.targets != 0).sum()), "every row outside the target class"


def test_what_makes_no_sense_on_a_table_says_why() -> None:
    task = create("tasks", "vehicle_claim_fraud")
    with pytest.raises(NotApplicable, match="row of a table"):
        check_applies(task, OnePoison(), create("defenses", "strip"))  # type: ignore[arg-type]
    with pytest.raises(NotApplicable, match="the trigger is a word"):
        check_applies(task, Badwords(), create("defenses", "none"))  # type: ignore[arg-type]


def grown_trees(classes: int, rows: int = 300, seed: int = 0) -> tuple[Trees, torch.Tensor, torch.Tensor]:
    """Small trees on numbers of which the first two decide the class."""
    torch.manual_seed(seed)
    x = torch.rand(rows, 5)
    y = ((x[:, 0] + x[:, 1]) * classes / 2).long().clamp(max=classes - 1)
    net = Trees(5, [1.0] * classes, rounds=20, depth=3)
    net.grow(x, y)
    return net, x, y


@pytest.mark.parametrize("classes", [2, 3])
def test_trees_are_those_of_scikit_learn(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    models = []
    fit = GradientBoostingClassifier.fit
    monkeypatch.setattr(
        GradientBoostingClassifier, "fit", lambda self, *a, **k: models.append(self) or fit(self, *a, **k)
    )
    net, x, y = grown_trees(classes)
    with torch.no_grad():
        logits = net(x).double().numpy()
    wanted = models[0].decision_function(x.numpy())
    found = logits[:, 1] - logits[:, 0] if classes == 2 else logits
    assert np.allclose(found, wanted, atol=1e-4)
    assert (net(x).argmax(1) == y).float().mean() > 0.9


def test_a_class_without_rows_is_never_the_answer_of_trees() -> None:
    net = Trees(5, [1.0] * 4, rounds=5, depth=2)
    x = torch.rand(100, 5)
    net.grow(x, torch.where(x[:, 0] > 0.5, 3, 1))
    assert set(net(x).argmax(1).tolist()) == {1, 3}
    net.grow(x, torch.full((100,), 2))
    assert set(net(x).argmax(1).tolist()) == {2}


def test_a_threshold_is_rounded_down() -> None:
    low = np.float32(0.1)
    high = np.nextafter(low, np.float32(1))
    between = (float(low) + float(high)) / 2
    assert round_down(between) == low
    assert round_down(float(high)) == high


@needs_data
def test_trees_are_a_victim_like_others(store: Store) -> None:
    """Defenses that train on change the head alone, and private training is refused."""
    task = create("tasks", "vehicle_claim_fraud", {"victim": "trees", "train_size": 2000, "test_size": 500})
    assert isinstance(task, Task)
    splits, fit = task.load(), Fitter(task, store, CPU, 0)
    first, second = fit(splits.train), Fitter(task, store, CPU, 1)(splits.train)
    again = Fitter(task, store, CPU, 0)(splits.train)
    assert torch.equal(first.module.column, again.module.column)
    assert not torch.equal(first.module.column, second.module.column)
    tuned = fit(splits.reserve, init=first, epochs=3)
    assert torch.equal(tuned.module.column, first.module.column)
    assert not torch.equal(tuned.module.head.weight, first.module.head.weight)
    with pytest.raises(NotApplicable, match="without privacy"):
        fit(splits.train, dp_clip=1.0)
