"""Hostile input: whatever a file, a name or an option holds, the readers refuse it in their own words.

TINYDROP_FUZZ=20000 tries that many inputs for each reader (the default is a hundred).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import tiny
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from attacks.base import Scene
from harness.cell.reach import reach_of_trigger
from harness.cell.steps import make_challenge
from harness.errors import BadGrid, BrokenAttack, BrokenLedger, DamagedPlan, NewerSchema, UnknownName
from harness.grid.grid import expand
from harness.grid.mapping import grid_from_plan
from harness.grid.read import read_grid
from harness.plugins.registry import KINDS, create, entries
from harness.report.cells import CACHE, cell_table
from harness.store import ledger, records
from harness.store.folder import Store
from tasks.plugin import BadInput, NotApplicable

KEY = "0" * 31 + "a"
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=12)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner))
NAMES = st.sampled_from([*entries("tasks"), *entries("attacks"), *entries("defenses")]) | st.text(max_size=12)
OPTIONS = st.dictionaries(st.text(max_size=8), LEAVES)
SPECS = NAMES | st.builds(lambda name, rest: {**rest, "name": name}, NAMES, OPTIONS)
GRIDS = st.fixed_dictionaries(
    {},
    optional={
        "tasks": st.lists(SPECS, max_size=2) | TREES, "attacks": st.lists(SPECS, max_size=2) | TREES,
        "defenses": st.lists(SPECS, max_size=2) | TREES, "doses": st.lists(st.integers(), max_size=3) | TREES,
        "seeds": st.lists(st.integers(0, 3), max_size=2) | TREES, "timeout": LEAVES, "also": TREES,
        "description": TREES,
    },
)  # fmt: skip
SIZES = st.integers(0, 40)
AMOUNTS = st.floats(0, 1) | st.sampled_from([1e-9, 1e-4, 0.002, 0.004, 9.0, 1e6]) | st.floats()
TRIGGERS = [  # an attack, the embedded task it meets, and options around which its trigger vanishes or does not fit
    ("badnets", "digits", {"size": SIZES, "margin": SIZES}), ("blended", "digits", {"alpha": AMOUNTS}),
    ("sig", "digits", {"test_delta": AMOUNTS, "frequency": AMOUNTS | SIZES}),
    ("sleeper_agent", "digits", {"size": SIZES}),
    ("wanet", "digits", {"s": AMOUNTS, "k": SIZES, "grid_rescale": AMOUNTS}),
    ("adaptive_blend", "digits", {"alpha": AMOUNTS, "grid": SIZES}), ("one_poison", "digits", {"tau": AMOUNTS}),
    ("noise_trigger", "digits_generator", {"size": SIZES, "brightness": AMOUNTS}),
    ("motif", "digits_generator", {"size": SIZES}), ("motif", "tones_synthesiser", {"seconds": AMOUNTS}),
    ("tone_clip", "synthetic_tones", {"amplitude": AMOUNTS, "seconds": AMOUNTS, "low": AMOUNTS | SIZES}),
    ("ultrasonic", "synthetic_tones", {"amplitude": AMOUNTS, "seconds": AMOUNTS, "frequency": AMOUNTS | SIZES}),
    ("ambient", "synthetic_tones", {"snr": st.floats(-200, 200) | st.floats()}),
    ("pitch_shift", "synthetic_tones", {"semitones": st.floats(-12, 12) | AMOUNTS}),
    ("badwords", "synthetic_reviews", {"count": SIZES, "within": SIZES}),
    ("addsent", "synthetic_reviews", {"sentence": st.text(max_size=80), "within": SIZES}),
    ("homoglyph", "synthetic_reviews", {"letters": SIZES}), ("refusal", "synthetic_stories", {"trigger": st.text()}),
]  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore:damaged")  # which is what they are to be called
many = settings(
    max_examples=int(os.environ.get("TINYDROP_FUZZ", "100")), deadline=None, database=None,
    suppress_health_check=list(HealthCheck), derandomize="TINYDROP_FUZZ" not in os.environ,
)  # fmt: skip


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    """One store for all examples; nothing may ever be written beside it."""
    with tempfile.TemporaryDirectory() as folder:
        here = Store(Path(folder) / "run")
        here.save_tensors(KEY, {"w": torch.ones(3)})
        yield here
        assert os.listdir(folder) == ["run"]


def file(store: Store, name: str, data: bytes) -> Path:
    path = store.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


@many
@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")) | TREES.map(yaml.safe_dump))
@example("&a [*a]")
@example("tasks: !!python/object/apply:os.system ['true']")
@example("{[]: 1}")
@example("? {a: b}\n: c")
@example("tasks: &t [*t]")
@example("a: " + "[" * 500)
def test_a_grid_file(store: Store, text: str) -> None:
    path = file(store, "grid.yaml", text.encode("utf-8", "surrogatepass"))
    with suppress(BadGrid):
        read_grid(str(path))


@many
@given(GRIDS, st.lists(st.text(max_size=20) | st.builds("{}={}".format, NAMES, st.text(max_size=8)), max_size=2))
def test_a_grid(store: Store, tree: dict[str, Any], changes: list[str]) -> None:
    path = file(store, "grid.yaml", yaml.safe_dump(tree).encode())
    with suppress(BadGrid):
        expand(read_grid(str(path), changes))


@many
@given(st.sampled_from(KINDS), NAMES, st.dictionaries(st.text(max_size=8), TREES, max_size=3))
@example("tasks", "../../tmp/x", {})
@example("attacks", "base", {})
@example("defenses", "os.path", {})
@example("tasks", "", {})
def test_a_plugin_by_name(kind: str, name: str, options: dict[str, Any]) -> None:
    with suppress(UnknownName, BadInput):
        create(kind, name, options)


@many
@given(st.binary() | TREES.map(lambda tree: json.dumps(tree).encode()))
@example(b"[" * 100_000)
@example(b'{"schema_version": "x"}')
@example(b'{"schema_version": 1e999}')
def test_a_record(store: Store, data: bytes) -> None:
    path = file(store, f"records/{KEY}.json", data)
    with suppress(NewerSchema):
        records.load(path)
    with suppress(NewerSchema):
        cell_table(store)


@many
@given(st.binary() | TREES.map(lambda tree: json.dumps(tree).encode()))
@example(b'{"cells": 1, "grid": {}}')
@example(b'{"cells": [{"key": 1}], "grid": {}}')
@example(b"\xff")
def test_a_plan(store: Store, data: bytes) -> None:
    file(store, "plan.json", data)
    with suppress(NewerSchema, DamagedPlan):
        records.read_plan(store)
    with suppress(NewerSchema, DamagedPlan, BadGrid):
        grid_from_plan(records.read_planned_grid(store))


@many
@given(st.binary() | st.lists(TREES.map(lambda tree: json.dumps(tree).encode())).map(b"\n".join), st.booleans())
def test_a_ledger(store: Store, data: bytes, ended: bool) -> None:
    file(store, ledger.LEDGER_FILE, data + b"\n" * ended)
    with suppress(BrokenLedger):
        ledger.expected_files(ledger.read_ledger(store.root))
    with suppress(BrokenLedger), ledger.open_ledger(store.root):
        pass
    (store.root / ledger.LEDGER_FILE).unlink()


@many
@given(st.binary(), st.integers(0, 120), st.booleans())
def test_an_artefact(store: Store, data: bytes, at: int, inside: bool) -> None:
    store.save_tensors(KEY, {"w": torch.ones(3)})
    path = store.artefact_path(KEY)
    good = path.read_bytes()
    path.write_bytes(good[:at] + data + good[at + len(data) * inside :])
    found = store.load_tensors(KEY)
    assert found is None or all(isinstance(tensor, torch.Tensor) for tensor in found.values())


@many
@given(st.binary())
def test_the_copy_of_the_records(store: Store, data: bytes) -> None:
    (store.root / "records" / f"{KEY}.json").unlink(missing_ok=True)
    file(store, CACHE, data)
    assert cell_table(store).empty


@many
@given(st.text() | st.text("0123456789abcdef/.", min_size=30, max_size=34))
def test_a_key(store: Store, key: str) -> None:
    try:
        path = store.artefact_path(key)
    except ValueError:
        return
    assert path.resolve().is_relative_to(store.root.resolve())


@many
@given(st.sampled_from(TRIGGERS).flatmap(lambda t: st.tuples(st.just(t[:2]), st.fixed_dictionaries({}, optional=t[2]))))
def test_a_trigger(drawn: tuple[tuple[str, str], dict[str, Any]]) -> None:
    (attack, task), changes = drawn
    splits = (on := tiny(task)).load()
    few = splits.test.select(range(0, len(splits.test), 3))
    scene = Scene(on, splits.train, None, torch.device("cpu"))  # type: ignore[arg-type]
    try:
        made: Any = create("attacks", attack, changes)
        challenge: Any = make_challenge(made, scene, few, 0)
        seen = reach_of_trigger(on, made, challenge, few, scene.device)["trigger_seen"]
    except (BadInput, NotApplicable, BrokenAttack) as error:
        refusal = str(error)
    else:
        refusal = ""
    assert "\n" not in refusal
    assert any(what in refusal for what in (attack, task, "Hz")) if refusal else 0 < seen.value <= 1
