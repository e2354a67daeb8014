"""Records: they are append-only, and what cannot be read is named."""

from __future__ import annotations

import json

import pytest

from harness.errors import NewerSchema
from harness.store import records
from harness.store.folder import Store
from harness.store.records import SCHEMA, Record

KEY = "0" * 31 + "a"


def record(**changes: object) -> Record:
    plug = {"name": "x", "label": "x", "options": {}}
    tree = {"key": KEY, "label": "x/x/0/x/0", "task": plug, "attack": plug, "defense": plug, "modality": "image",
            "dose": 0, "seed": 0, "stage": "control", "status": "done", **changes}  # fmt: skip
    return Record.model_validate(tree)


def test_records_round_trip_and_are_append_only(store: Store) -> None:
    first = records.save(store, record(status="failed", reason="once"))
    second = records.save(store, record(seconds={"total": 1.5}))
    assert first != second
    assert first.exists()
    found = records.load_all(store)
    assert found[KEY].status == "done", "the newest attempt counts"
    assert found[KEY].seconds == {"total": 1.5}
    assert set(records.load_all(store)) == {KEY}


def test_a_truncated_record_counts_as_missing(store: Store) -> None:
    path = records.save(store, record())
    path.write_text(path.read_text()[:100])
    with pytest.warns(UserWarning, match="damaged record"):
        assert records.load_all(store) == {}


def test_a_record_from_before_there_were_notes_has_none(store: Store) -> None:
    path = records.save(store, record(notes=["the reserve is small"]))
    tree = json.loads(path.read_text())
    assert tree.pop("notes") == ["the reserve is small"]
    path.write_text(json.dumps(tree))
    assert records.load_all(store)[KEY].notes == []


def test_a_newer_schema_is_refused(store: Store) -> None:
    path = records.save(store, record())
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": SCHEMA + 1}))
    with pytest.raises(NewerSchema, match="upgrade"):
        records.load_all(store)
