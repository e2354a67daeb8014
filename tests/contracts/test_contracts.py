"""The contract of every plug-in, generated from the registry: add a file and it is tested."""

from __future__ import annotations

from inspect import isroutine
from typing import Any

import pytest
from helpers import EXAMPLES, USER_DATA, task_names, tiny

from attacks.base import Attack
from defenses.base import Defense
from harness.plugins.registry import KINDS, create, entries, fits, load_class
from harness.store.folder import Store
from harness.testing.checks import check_attack_on, check_defense_on, check_options, check_task
from tasks.plugin import NotApplicable

MODALITIES = {"any", *(task.modalities[0] for task in entries("tasks").values())}
ALL = [(kind, name) for kind in KINDS for name in entries(kind)]


def tasks_with_code_of_their_own() -> list[str]:
    """All tasks; of those of one base class that have no methods, and so are the same code on other data, only one."""
    chosen: dict[object, str] = {}
    classes: dict[str, Any] = {name: load_class("tasks", name) for name in task_names()}
    for name, cls in sorted(classes.items(), key=lambda item: item[1].dataset != "embedded"):  # embedded data first
        attributes = [value for key, value in vars(cls).items() if not key.startswith("__")]
        has_methods = any(isroutine(value) or isinstance(value, property) for value in attributes)
        chosen.setdefault(cls if has_methods else cls.__bases__, name)
    return sorted(chosen.values())


TASKS = tasks_with_code_of_their_own()
ATTACK_TASKS = [  # task by task, so that a dataset is read once
    (a.name, t)
    for t in TASKS
    for a in entries("attacks").values()
    if fits(entries("tasks")[t].modalities[0], a.modalities)
]
DEFENSE_TASKS = [(d, t) for d in entries("defenses") for t in (*EXAMPLES.values(), "story_preferences")]
# Options that make a plug-in quick; its contract does not depend on them.
QUICK = {
    "rounds": 40, "steps": 4, "retrain": 0, "sources": 60, "restarts": 1,
    "clean_rows": 40, "parts": 3, "overlays": 4, "epochs": 1, "teacher_epochs": 1, "unlearn_epochs": 1,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_default_constructible_and_options_round_trip(kind: str, name: str) -> None:
    check_options(create(kind, name))


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_described_for_the_list(kind: str, name: str) -> None:
    entry = entries(kind)[name]
    assert len(entry.summary) > 20, "the docstring's first paragraph is what `tinydrop list` shows"
    assert set(entry.modalities) <= MODALITIES
    assert entry.modalities
    if entry.stage != "control" and name not in USER_DATA:
        assert entry.paper or (kind == "tasks"), "name the paper"
    if kind == "defenses" and not ("any" in entry.modalities or {"image", "text", "audio"} <= set(entry.modalities)):
        assert entry.why_not, "say why it makes no sense for the other modalities"


def quick(kind: str, name: str) -> Attack | Defense:
    plugin = create(kind, name, {k: v for k, v in QUICK.items() if k in entries(kind)[name].options})
    assert isinstance(plugin, Attack | Defense)
    return plugin


@pytest.mark.parametrize(("attack_name", "task_name"), ATTACK_TASKS)
def test_attack(attack_name: str, task_name: str, store: Store) -> None:
    try:
        check_attack_on(quick("attacks", attack_name), tiny(task_name), store)  # type: ignore[arg-type]
    except NotApplicable as reason:
        pytest.skip(f"not applicable: {reason}")


@pytest.mark.parametrize(("defense_name", "task_name"), DEFENSE_TASKS)
def test_defense(defense_name: str, task_name: str, store: Store) -> None:
    try:
        check_defense_on(quick("defenses", defense_name), tiny(task_name), store)  # type: ignore[arg-type]
    except NotApplicable as reason:
        pytest.skip(f"not applicable: {reason}")


@pytest.mark.parametrize("name", TASKS)
def test_task(name: str) -> None:
    check_task(tiny(name))
