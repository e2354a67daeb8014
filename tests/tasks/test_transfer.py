"""Transfer learning and frozen trials: what targeted attacks stand on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers import needs_data, tiny
from typer.testing import CliRunner

from attacks.targeted import FROZEN, TargetedAttack, find_trial
from harness.cell import steps
from harness.cell.case import Fitter
from harness.cli.app import app
from harness.errors import BadGrid
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.base import Task, sealed
from tasks.plugin import BadInput, NotApplicable


def task_of(name: str, **options: object) -> Task:
    task = create("tasks", name, options)
    assert isinstance(task, Task)
    return task


def flip(**options: object) -> TargetedAttack:
    attack = create("attacks", "label_flip", options)
    assert isinstance(attack, TargetedAttack)
    return attack


def test_the_head_is_new_and_the_body_is_the_source_victims(store: Store) -> None:
    task = task_of("digits_transfer", train_size=300, epochs=30)
    source = task.source()
    assert source is not None
    assert source.source() is None
    assert set(source.classes).isdisjoint(task.classes)
    splits = task.load()
    assert not set(splits.train.ids.tolist()) & set(source.load().train.ids.tolist())
    fit = Fitter(task, store, CPU, 0)
    with sealed():  # as a defense would: the body's data is none of its business, training is
        victims = [fit(splits.train, seed=seed).module.state_dict() for seed in (0, 1)]
    body = Fitter(source, store, CPU, 0)(source.load().train).module.state_dict()
    for name, value in body.items():
        if name.startswith("head."):
            assert not torch.equal(victims[0][name], victims[1][name])
        else:
            assert torch.equal(victims[0][name], value), name
    answers = fit(splits.train).predict(splits.test).answers
    assert (answers == splits.test.targets).float().mean() > 0.55


def test_training_a_head_on_features_computed_once_is_training_it_through_the_body(store: Store) -> None:
    task = task_of("digits_transfer", train_size=300, epochs=30)
    fit = Fitter(task, store, CPU, 0)
    splits = task.load()
    quick, slow = fit(splits.train), fit(splits.train, loss=task.loss)
    assert len({f["key"] for f in fit.fits}) == 2
    a, b = (victim.predict(splits.test).scores for victim in (quick, slow))
    torch.testing.assert_close(a, b, atol=0.02, rtol=0)


@pytest.mark.parametrize("file", sorted(FROZEN.glob("*.json")), ids=lambda f: f.stem)
def test_frozen_trials_can_be_run(file: Path) -> None:
    sizes = {"cifar10_transfer": (200, 400), "digits_transfer": (400, None)}.get(file.stem, (1000, 300))
    task = tiny(file.stem)  # skips where the data is absent
    task = task_of(file.stem, train_size=sizes[0], **({"test_size": sizes[1]} if sizes[1] else {}))
    splits, trials = task.load(), json.loads(file.read_text())
    assert len(trials) >= 20
    assert len({t["target"] for t in trials}) == len(trials)
    for number in range(len(trials)):
        trial = find_trial(flip(), task, splits, number)
        assert trial.wanted != int(trial.target.targets)
        rows = splits.train.select(splits.train.positions(trial.bases))
        assert len(rows) >= 30
        assert (rows.targets == trial.wanted).all()


def test_a_trial_that_cannot_be_run_says_what_to_do(tmp_path: Path) -> None:
    task = task_of("digits", train_size=1000)
    splits = task.load()
    with pytest.raises(BadInput, match=r"seed=99: digits.json has trials 0 to 23"):
        find_trial(flip(), task, splits, 99)
    other = task_of("digits", train_size=1000, subset_seed=5)
    with pytest.raises(BadInput, match=r"subset_seed"):
        find_trial(flip(), other, other.load(), 0)
    texts = task_of("synthetic_reviews")
    with pytest.raises(NotApplicable, match=r"tinydrop trials synthetic_reviews"):
        find_trial(flip(), texts, texts.load(), 0)
    with pytest.raises(BadInput, match=r"label_flip.trials='nowhere.json': no such file"):
        find_trial(flip(trials="nowhere.json"), task, splits, 0)
    (tmp_path / "bad.json").write_text('[{"target": 3}]')
    with pytest.raises(BadInput, match=r"target, wanted, bases"):
        find_trial(flip(trials=str(tmp_path / "bad.json")), task, splits, 0)


def test_trials_of_ones_own_are_frozen_and_run(tmp_path: Path, store: Store) -> None:
    file = tmp_path / "mine.json"
    made = CliRunner().invoke(
        app, ["trials", "digits_transfer", "--set", "train_size=200", "--set", "body_epochs=5", "--count", "3",
              "--bases", "10", "--out", str(file)],
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert [len(t["bases"]) for t in json.loads(file.read_text())] == [10, 10, 10]
    task = task_of("digits_transfer", train_size=200, body_epochs=5)
    found = steps.run_steps(task, flip(trials=str(file)), 30, create("defenses", "none"), 2, store, CPU)  # type: ignore[arg-type]
    assert found.metrics["asr"].n == 1, "one target, one answer"
    assert found.metrics["asr_floor"].value == 0, "a clean victim reads the target right"


@pytest.mark.parametrize("change", ["train_size", "train_size=[", "train_siz=5"])
def test_a_wrong_option_of_trials_is_named_in_one_line(change: str, tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["trials", "digits_transfer", "--set", change, "--out", str(tmp_path / "t.json")])
    assert isinstance(answer.exception, BadGrid | BadInput)
    assert "train_siz" in str(answer.exception)
    assert not (tmp_path / "t.json").exists()


def test_a_flip_against_a_class_that_is_not_there_does_not_apply(store: Store) -> None:
    with pytest.raises(NotApplicable, match=r"target=7.*0 to 4"):
        steps.run_steps(
            tiny("digits_transfer"), flip(aim="class", target=7), 1, create("defenses", "none"), 0, store, CPU
        )  # type: ignore[arg-type]


@needs_data
def test_the_transfer_task_on_real_data_learns_unseen_classes(store: Store) -> None:
    task = task_of("cifar10_transfer", train_size=400, test_size=400, body_size=1500, body_epochs=4)
    splits = task.load()
    answers = Fitter(task, store, CPU, 0)(splits.train).predict(splits.test).answers
    assert (answers == splits.test.targets).float().mean() > 0.45  # of four classes
