"""Every path runs on CUDA as on the CPU, within a stated tolerance. Skipped where there is no device."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import CLASSIFIED, EXAMPLES, tiny

from attacks.targeted import TargetedAttack
from harness.cell.steps import run_steps
from harness.cell.train import _train, make_network, train_victim
from harness.plugins.registry import create, entries
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.plugin import NotApplicable

GPU = torch.device("cuda")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("task_name", [EXAMPLES[m] for m in CLASSIFIED])
def test_predictions_agree_with_the_cpu(task_name: str) -> None:
    """The same weights give the same probabilities within 0.03, which is what bfloat16 (8 bits) leaves of a softmax."""
    task = tiny(task_name)
    splits = task.load()
    victim = train_victim(task, splits.train, recipe=task.recipe(), seed=0, device=CPU)
    ours = victim.predict(splits.test).scores
    victim.module.cuda()
    victim.device = GPU
    assert (victim.predict(splits.test).scores - ours).abs().max() < 0.03


@pytest.mark.parametrize("task_name", [EXAMPLES[m] for m in CLASSIFIED])
def test_accuracy_agrees_with_the_cpu(task_name: str) -> None:
    """Trained apart, clean accuracy agrees within 5 points (a few hundred test rows)."""
    task = create("tasks", task_name)
    splits = task.load()  # type: ignore[attr-defined]
    found = []
    for device in (CPU, GPU):
        victim = train_victim(task, splits.train, recipe=task.recipe(), seed=0, device=device)  # type: ignore
        found.append((victim.predict(splits.test).answers == splits.test.targets).float().mean().item())
    assert abs(found[0] - found[1]) < 0.05


def run_on_gpu(attack: str, defense: str, modality: str, store: Store) -> None:
    task: Any = tiny(EXAMPLES[modality])
    plugins: Any = create("attacks", attack or task.plain_attack), create("defenses", defense)
    if isinstance(plugins[0], TargetedAttack):  # its trials are of the whole task
        task = create("tasks", "digits_transfer")
    if "data_sources" in plugins[1].needs:
        task = replace(task, data_sources=4)
    with suppress(NotApplicable):
        result = run_steps(task, plugins[0], 5, plugins[1], 0, store, GPU)
        assert result.fits, "a model was trained on the GPU"
        assert result.metrics["asr"].n > 0


def own_modality(kind: str, name: str) -> str:
    """A modality that a plug-in is for; images for one that is for all."""
    return next(m for m in (*entries(kind)[name].modalities, "image") if m in EXAMPLES)


@pytest.mark.parametrize("name", list(entries("defenses")))
def test_every_defense_runs(name: str, store: Store) -> None:
    run_on_gpu("", name, own_modality("defenses", name), store)


@pytest.mark.parametrize("name", [name for name in entries("attacks") if name != "none"])
def test_every_attack_runs(name: str, store: Store) -> None:
    run_on_gpu(name, "none", own_modality("attacks", name), store)


@pytest.mark.parametrize("task_name", [EXAMPLES[m] for m in CLASSIFIED])
def test_graphs_train_as_well(task_name: str) -> None:
    """Through graphs the same kernels run, warmed up with other random numbers: accuracy agrees within 5 points."""
    task = create("tasks", task_name)
    splits = task.load()  # type: ignore[attr-defined]
    found = []
    for speedup in ("none", "graphs"):
        victim = train_victim(
            task, splits.train, recipe=task.recipe(), seed=0, device=GPU, speedup=speedup  # type: ignore
        )  # fmt: skip
        found.append((victim.predict(splits.test).answers == splits.test.targets).float().mean().item())
    assert abs(found[0] - found[1]) < 0.05


@pytest.mark.parametrize("task_name", [EXAMPLES[m] for m in CLASSIFIED])
def test_waits_once_an_epoch(task_name: str) -> None:
    """The GPU works on while Python prepares the next step; the one wait is for the check of an epoch's loss."""
    task = tiny(task_name)
    train = task.load().train
    recipe = replace(task.recipe(), epochs=3)
    train_victim(task, train, recipe=recipe, seed=0, device=GPU)
    x, y = task.rows(train, GPU)
    module = make_network(task, recipe, 0, GPU, None)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            _train(task, module, x, y, recipe, 0, None, "none")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [w for w in waits if "synchroniz" in str(w.message)]
    assert len(waits) <= 2 * recipe.epochs, [str(w.message) for w in waits]  # and the order of rows comes from the CPU


def test_deterministic_switch_repeats_bit_for_bit() -> None:
    task = tiny("digits")
    splits = task.load()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (train_victim(task, splits.train, recipe=task.recipe(), seed=0, device=GPU) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(first.module.state_dict().values(), second.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)
