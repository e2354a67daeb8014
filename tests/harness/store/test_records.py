"""Records: they are append-only, and what cannot be read is named."""

from __future__ import annotations

import json

import pytest

from harness.errors import NewerSchema
from harness.store import ledger, records
from harness.store.folder import Store
from harness.store.records import SCHEMA, Measured, Record

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


@pytest.mark.parametrize(
    "changes",
    [
        {"dose": 10**20}, {"seed": 2**64}, {"train_size": 2**63}, {"dose": True}, {"clean_used": 10**30},
        {"metrics": {"asr": {"value": 1e999, "n": 1}}}, {"metrics": {"asr": {"value": 0.5, "n": 10**20}}},
        {"seconds": {"total": float("nan")}}, {"fit_seconds": float("inf")}, {"peak_memory_bytes": 2**70},
    ],
)  # fmt: skip
def test_a_record_that_no_table_could_hold_counts_as_missing(store: Store, changes: dict[str, object]) -> None:
    path = records.save(store, record())
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    if changes == {"dose": True}:
        assert records.load_all(store)[KEY].dose == 1, "as JSON has it, harmlessly"
        return
    assert "is no record" in records.find_fault(str(path), path.read_bytes())
    with pytest.warns(UserWarning, match="damaged record"):
        assert records.load_all(store) == {}


def test_any_record_can_be_stored(store: Store) -> None:
    odd = record()
    odd.reason, odd.target_name, odd.traceback = "caf\udce9", "\ud800", "x\x00\x1b"
    odd.fits = [{"seconds": float("nan"), "n": 10**30, "s": {1, 2}, 3: object()}]  # type: ignore[dict-item]
    odd.provenance = {"a": (float("inf"), None, True), "b": KeyError("x")}
    saved = records.storable(odd)
    assert (saved.status, saved.reason, saved.target_name) == ("done", r"caf\udce9", r"\ud800")
    records.save(store, saved)
    assert records.load_all(store)[KEY] == saved
    odd.metrics["asr"] = Measured.model_construct(value=float("nan"), n=1)
    saved = records.storable(odd)
    assert (saved.status, saved.metrics) == ("failed", {})
    assert saved.reason.startswith("its record cannot be stored: 'metrics.asr.value'")
    records.save(store, saved)
    records.write_plan(store, {"description": "\udce9"}, [{"dose": float("inf")}])
    with ledger.open_ledger(store.root) as book:
        book.append("run", about={"grid": {"description": "\udce9", "timeout": float("inf"), "seeds": [2**64]}})
    assert ledger.read_ledger(store.root)[-1].about["grid"]["timeout"] == "inf"
