"""The store: atomic, content-addressed, and patient with damage."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.errors import NewerSchema
from harness.keys.content import digest, files_hash
from harness.keys.source import source_hash
from harness.plugins.registry import create
from harness.store import records
from harness.store.folder import Store, write_atomically
from harness.store.records import SCHEMA, Record

KEY = "0" * 31 + "a"


def record(**changes: object) -> Record:
    plug = {"name": "x", "label": "x", "options": {}}
    tree = {"key": KEY, "label": "x/x/0/x/0", "task": plug, "attack": plug, "defense": plug, "modality": "image",
            "dose": 0, "seed": 0, "stage": "control", "status": "done", **changes}  # fmt: skip
    return Record.model_validate(tree)


def test_tensors_are_made_once(store: Store) -> None:
    made = []

    def make() -> dict[str, torch.Tensor]:
        made.append(1)
        return {"w": torch.arange(6.0).reshape(2, 3)}

    first, new = store.load_or_make_tensors(KEY, make)
    second, again = store.load_or_make_tensors(KEY, make)
    assert (new, again, len(made)) == (True, False, 1)
    assert torch.equal(first["w"], second["w"])


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: b"junk", lambda data: data[:-7], lambda data: data[:-1] + bytes([data[-1] ^ 1])],
    ids=["empty", "junk", "cut", "a bit fell over"],
)
def test_a_damaged_artefact_is_made_again_with_a_warning(store: Store, damage: Callable[[bytes], bytes]) -> None:
    store.save_tensors(KEY, {"w": torch.ones(50)})
    path = store.artefact_path(KEY)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="damaged artefact"):
        found, new = store.load_or_make_tensors(KEY, lambda: {"w": torch.zeros(2)})
    assert new
    assert torch.equal(found["w"], torch.zeros(2))


@pytest.mark.parametrize("key", ["../../etc/passwd", "a" * 31, "A" * 32, "0" * 31 + "/", ""])
def test_no_key_leaves_the_store(store: Store, key: str) -> None:
    for place in (store.artefact_path, store.record_path, store.findings_folder):
        with pytest.raises(ValueError, match="32 hex digits"):
            place(key)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "f.json"
    write_atomically(target, "old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.json"]


def test_files_are_for_whom_the_umask_lets_read(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "f.json", "all")
    finally:
        os.umask(before)
    assert (tmp_path / "f.json").stat().st_mode & 0o777 == 0o644


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


def test_a_newer_schema_is_refused(store: Store) -> None:
    path = records.save(store, record())
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": SCHEMA + 1}))
    with pytest.raises(NewerSchema, match="upgrade"):
        records.load_all(store)


def test_digest_tells_contents_apart() -> None:
    same = [torch.arange(4), {"b": 2, "a": 1}, ("x", 1.0), None]
    assert digest(*same) == digest(torch.arange(4), {"a": 1, "b": 2}, ["x", 1.0], None)
    different = {
        digest(x)
        for x in (1, 1.0, "1", True, None, b"1", [1], {"1": 1}, torch.tensor(1), torch.tensor([1]), torch.tensor([1.0]))
    }
    assert len(different) == 11
    assert digest(["a", "b"], "c") != digest(["a"], "b", "c")
    with pytest.raises(TypeError, match="no stable content"):
        digest(lambda: 1)


def test_digest_of_a_plugin_sees_options_and_source() -> None:
    assert digest(create("attacks", "badnets")) == digest(create("attacks", "badnets", {"size": 3}))
    assert digest(create("attacks", "badnets")) != digest(create("attacks", "badnets", {"size": 4}))
    assert source_hash("attacks.image.badnets") != source_hash("attacks.image.blended")


def test_digest_of_a_plugin_sees_what_is_in_the_files_its_options_name(tmp_path: Path) -> None:
    def keys() -> tuple[str, str]:
        files_hash.cache_clear()  # as in a new process
        task = create("tasks", "csv_text", {"path": str(table), "labels": ("a", "b")})
        return digest(task), digest(create("tasks", "image_folder", {"path": str(tmp_path)}))

    (tmp_path / "train").mkdir()
    table = tmp_path / "train" / "rows.csv"
    table.write_text("text,label\nx,a\ny,b\n")
    before = keys()
    assert keys() == before
    table.write_text("text,label\nx,b\ny,a\n")
    changed = keys()
    assert changed[0] != before[0]
    assert changed[1] != before[1]
    table.rename(tmp_path / "rows.csv")
    table = tmp_path / "rows.csv"
    assert keys()[1] != changed[1]  # same bytes under another name
