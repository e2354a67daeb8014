"""The table of all records, kept as Parquet: the same as reading every file, and never older than they are."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from harness.report.cells import CACHE, cell_table, cells_frame, notes_by_task, read_cells
from harness.report.write import as_csv
from harness.store import records
from harness.store.folder import Store
from harness.store.records import Measured, Record


def record(i: int, **changes: object) -> Record:
    plug = {"name": "x", "label": "x", "options": {}}
    tree = {"key": f"{i:032x}", "label": f"x/x/{i}/x/0", "task": plug, "attack": plug, "defense": plug, "dose": i,
            "modality": "image", "seed": 0, "stage": "control", "status": "done", "seconds": {"total": 1.0 + i},
            "metrics": {"utility": {"value": 0.5, "n": 10}, "asr": {"value": i / 10, "n": 7}}, **changes}  # fmt: skip
    return Record.model_validate(tree)


def whole(store: Store) -> pd.DataFrame:
    return cells_frame(sorted(records.load_all(store).values(), key=lambda r: r.key))


def test_it_is_what_reading_every_record_gives(store: Store) -> None:
    assert cell_table(store).empty
    for i in range(5):
        records.save(store, record(i))
    pd.testing.assert_frame_equal(cell_table(store), whole(store).dropna(axis="columns", how="all"))
    records.save(store, record(7, status="failed", reason="bad luck", metrics={}))
    records.save(store, record(2, metrics={"asr": Measured(value=1.0, n=7), "aaa": Measured(value=0.1, n=1)}))
    found = cell_table(store)
    pd.testing.assert_frame_equal(found, whole(store).dropna(axis="columns", how="all"))
    assert found.asr[2] == 1, "the newest attempt counts"


def test_notes_on_the_data_are_told_once_for_each_task(store: Store) -> None:
    said = ["half; is cut", "the reserve\nis small, <b>"]
    for i, notes in enumerate((said, said[1:], [], ["another"])):
        records.save(store, record(i, notes=notes, task={"name": "t", "label": f"t{i // 3}", "options": {}}))
    cells = whole(store)
    assert notes_by_task(cells) == {"t0": said, "t1": ["another"]}
    assert cell_table(store).notes.notna().sum() == cell_table(store).notes.notna().sum() == 3, "read, and as kept"
    assert notes_by_task(cells.drop(columns="notes")) == {}
    assert notes_by_task(cells.assign(notes=["by hand", "7", "", None])) == {"t0": ["by hand", "7"]}
    (store.root / "x").mkdir()
    (store.root / "x" / "cells.csv").write_text(as_csv(cells))
    assert notes_by_task(read_cells(store.root / "x" / "cells.csv")) == {"t0": said, "t1": ["another"]}


def test_only_new_files_are_opened(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    load = records.load

    def counting(path: Path) -> Record | None:
        opened.append(path.name)
        return load(path)

    monkeypatch.setattr(records, "load", counting)
    for i in range(4):
        records.save(store, record(i))
    cell_table(store)
    records.save(store, record(9))
    cell_table(store)
    cell_table(store)
    assert len(opened) == 5


def test_keys_are_taken_in_their_order_and_missing_ones_left_out(store: Store) -> None:
    for i in range(4):
        records.save(store, record(i))
    found = cell_table(store, [f"{i:032x}" for i in (3, 99, 1)])
    assert list(found.dose) == [3, 1]


@pytest.mark.parametrize("damage", [b"", b"junk", None])
def test_a_copy_that_cannot_be_read_is_made_anew(store: Store, damage: bytes | None) -> None:
    for i in range(3):
        records.save(store, record(i))
    before, path = cell_table(store), store.root / CACHE
    path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
    pd.testing.assert_frame_equal(cell_table(store), before)


def test_a_record_that_was_removed_is_gone(store: Store) -> None:
    paths = [records.save(store, record(i)) for i in range(3)]
    cell_table(store)
    paths[1].unlink()
    assert list(cell_table(store).dose) == [0, 2]


def test_a_damaged_record_counts_as_missing_and_is_read_again(store: Store) -> None:
    path = records.save(store, record(1))
    good = path.read_text()
    path.write_text(good[:50])
    with pytest.warns(UserWarning, match="damaged record"):
        assert cell_table(store).empty
    path.write_text(good)
    assert len(cell_table(store)) == 1


def test_a_record_that_was_damaged_after_it_was_read_is_not_shown_as_done(store: Store) -> None:
    paths = [records.save(store, record(i)) for i in range(3)]
    assert len(cell_table(store)) == 3
    good = paths[1].read_bytes()
    paths[1].write_bytes(b"x" * len(good))  # the same size
    with pytest.warns(UserWarning, match="damaged record"):
        assert list(cell_table(store).dose) == [0, 2]
    paths[1].write_bytes(good)
    assert list(cell_table(store).dose) == [0, 1, 2]


def test_a_folder_that_cannot_be_written_is_read_all_the_same(store: Store) -> None:
    records.save(store, record(1))
    (store.root / CACHE).mkdir()
    assert len(cell_table(store)) == 1
