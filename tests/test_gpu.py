"""Every path runs on CUDA as on the CPU, within a stated tolerance. Skipped where there is no device."""

from __future__ import annotations

import pytest
import torch
from helpers import CLASSIFIED, EXAMPLES, tiny

from harness.cell.steps import run_steps
from harness.cell.train import train_victim
from harness.plugins.registry import create, entries
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.plugin import NotApplicable

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
    victim.device = torch.device("cuda")
    assert (victim.predict(splits.test).scores - ours).abs().max() < 0.03


@pytest.mark.parametrize("task_name", [EXAMPLES[m] for m in CLASSIFIED])
def test_accuracy_agrees_with_the_cpu(task_name: str) -> None:
    """Trained apart, clean accuracy agrees within 5 points (a few hundred test rows)."""
    task = create("tasks", task_name)
    splits = task.load()  # type: ignore[attr-defined]
    found = []
    for device in (CPU, torch.device("cuda")):
        victim = train_victim(task, splits.train, recipe=task.recipe(), seed=0, device=device)  # type: ignore
        found.append((victim.predict(splits.test).answers == splits.test.targets).float().mean().item())
    assert abs(found[0] - found[1]) < 0.05


@pytest.mark.parametrize("defense_name", list(entries("defenses")))
@pytest.mark.parametrize("task_name", EXAMPLES.values())
def test_every_defense_runs(defense_name: str, task_name: str, store: Store) -> None:
    task = tiny(task_name)
    attack = create("attacks", task.plain_attack)
    try:
        result = run_steps(task, attack, 5, create("defenses", defense_name), 0, store, torch.device("cuda"))  # type: ignore[arg-type]
    except NotApplicable:
        return
    assert 0 <= result.metrics["asr"].value <= 1


def test_deterministic_switch_repeats_bit_for_bit() -> None:
    task = tiny("digits")
    splits = task.load()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (
            train_victim(task, splits.train, recipe=task.recipe(), seed=0, device=torch.device("cuda"))
            for _ in range(2)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(first.module.state_dict().values(), second.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)
