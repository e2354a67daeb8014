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
from draws import LEAVES, TREES, many
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.errors import BadGrid, BrokenLedger, DamagedPlan, NewerSchema, UnknownName
from harness.grid.grid import expand
from harness.grid.mapping import grid_from_mapping, grid_from_plan, mapping_from_grid
from harness.grid.read import read_grid
from harness.plugins.registry import KINDS, create, entries
from harness.report.cells import CACHE, cell_table, read_cells
from harness.report.write import as_csv, build_tables
from harness.store import ledger, records
from harness.store.folder import Store
from harness.store.records import PluginRecord
from tasks.files import files_hash
from tasks.plugin import BadInput, is_litter

KEY = "0" * 31 + "a"
NAMES = st.sampled_from([*entries("tasks"), *entries("attacks"), *entries("defenses")]) | st.text(max_size=12)
WORDS = st.sampled_from(
    ["yes", "no", "on", "off", "true", "~", "null", "", ".inf", "-.inf", ".nan", "1e-3", "1E5", ".5e3", "010", "0o10",
     "0x1F", "1_000", "1:30", "2024-01-01", "<<", "=", "1e999", "[yes, no]", "[01, 02]", "{a: 1}", "!!set {a}", "5.0",
     "'5'", "-0", "-5", "9007199254740992", "\ufeff1", "&a [*a]", "[[1]]", "'1'", "'[1]'", "0..50", "'0,5'"]
)  # fmt: skip
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
pytestmark = pytest.mark.filterwarnings("ignore:damaged")  # which is what they are to be called


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


def assert_one_line(error: Exception) -> None:
    assert "\n" not in str(error)


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
@given(
    st.sampled_from(["doses", "seeds", "timeout", "description", "digits.epochs", "digits.lr", "digits.augmentation",
                     "badnets.target", "badnets.clean_label", "also", "tasks"]),
    WORDS | st.text("0123456789_.+-eExo:~<&*'[]{},yYnN ", max_size=12) | TREES.map(yaml.safe_dump),
)  # fmt: skip
@example("timeout", ".inf")
@example("timeout", "1:30")
@example("badnets.target", "!!binary aGk=")
@example("digits.lr", "1e999")
@example("seeds", "18446744073709551616")
@example("description", '"\\ud800"')
def test_a_value_of_a_grid_is_kept_exactly_or_refused_in_one_line(store: Store, field: str, text: str) -> None:
    base = "tasks: [digits]\nattacks: [badnets]\ndoses: [0]\ndefenses: [none]\nseeds: [0]\n"
    path = file(store, "grid.yaml", base.encode())
    try:
        grid = read_grid(str(path), [f"{field}={text}"])
        cells = expand(grid)
    except BadGrid as error:
        assert_one_line(error)
        return
    written = json.loads(json.dumps(mapping_from_grid(grid), allow_nan=False))
    assert grid_from_mapping(written) == grid
    assert [cell.key for cell in expand(grid_from_plan(written))] == [cell.key for cell in cells]
    records.write_plan(store, written, [cell.columns for cell in cells])
    assert [cell["label"] for cell in records.read_plan(store)] == [cell.label for cell in cells]
    assert all(cell.label.isprintable() for cell in cells)


@settings(many, max_examples=many.max_examples // 4)  # for tables take time
@given(st.dictionaries(st.sampled_from(sorted(set(records.Record.model_fields) - {"schema_version", "key"})), TREES))
@example({"clean_metric": None, "stage": 3, "modality": "\ud800"})
@example({"reason": "\ud800", "traceback": "\x00\x1b[0m", "provenance": {"a": float("nan")}})
@example({"metrics": {"asr": {"value": float("inf"), "n": 10**30}}, "dose": 2**64})
def test_a_record_with_any_values_is_stored_and_reported(changes: dict[str, Any]) -> None:
    plug = PluginRecord(name="x", label="x", options={})
    good = {"key": KEY, "label": "x/x/0/x/0", "task": plug, "attack": plug, "defense": plug, "modality": "image",
            "dose": 0, "seed": 0, "stage": "control", "status": "done"}  # fmt: skip
    plain = {name: value for name, value in changes.items() if name not in good or name in ("stage", "modality")}
    odd = records.Record.model_construct(**good | plain)
    saved = records.storable(odd)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Store(Path(folder))
        records.save(fresh, saved)
        assert records.load_all(fresh) == {KEY: saved}
        cells = cell_table(fresh)
        tables = build_tables(cells)
        assert cells.status.tolist() == [saved.status]
        (fresh.root / "cells.csv").write_text(as_csv(cells), encoding="utf-8", newline="")
        again = read_cells(fresh.root / "cells.csv")
        assert again.reason.tolist() == tables.cells.reason.tolist()


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


FILES = st.dictionaries(
    st.sampled_from(["a.png", "b.png", "a/1.png", "a/2.png", "b/1.png", "a/.DS_Store", ".x/1.png", "b/Thumbs.db"]),
    st.binary(max_size=3),
    max_size=4,
)


@many
@given(FILES, FILES, st.booleans())
@example({"a.png": b""}, {"b.png": b""}, False)
@example({"a/1.png": b"x", "a/2.png": b""}, {"a/1.png": b"", "a/2.png": b"x"}, True)
def test_the_files_of_a_folder(one: dict[str, bytes], other: dict[str, bytes], linked: bool) -> None:
    """Two folders have one hash where readers see the same, and only there."""
    with tempfile.TemporaryDirectory() as folder:
        hashes = []
        for name, files in {"one": one, "other": other}.items():
            for path, data in files.items():
                place = Path(folder) / ("real" if linked else "here") / name / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            here = Path(folder) / "here" / name
            real = Path(folder) / "real" / name
            real.mkdir(parents=True, exist_ok=True)
            here.mkdir(parents=True, exist_ok=True)
            for entry in real.iterdir():
                (here / entry.name).symlink_to(entry)
            hashes.append(files_hash(str(here)))
    seen = [
        {n: d for n, d in files.items() if not any(map(is_litter, map(Path, n.split("/"))))} for files in (one, other)
    ]
    assert (hashes[0] == hashes[1]) == (seen[0] == seen[1])


@many
@given(st.text(max_size=30) | st.text("~$/{}a.", max_size=12))
def test_a_path(text: str) -> None:
    with suppress(BadInput):
        assert all(os.path.exists(file) for file in create("tasks", "csv_text", {"path": text}).files())  # type: ignore[attr-defined]
