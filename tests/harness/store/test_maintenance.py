"""The ledger, and what it is for: a store that was touched, cut short, joined or swept."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.app import app
from harness.errors import BrokenLedger
from harness.grid.mapping import grid_from_mapping
from harness.run.execute import execute
from harness.run.plan import make_plan
from harness.run.settings import Settings
from harness.store import ledger, maintenance, records
from harness.store.folder import Store
from harness.store.maintenance import find_unreferenced, merge, verify

SMALL = {"name": "digits", "train_size": 150, "epochs": 1, "test_size": 60}
SHOWS = {"name": "neural_cleanse", "clean_rows": 20, "starts": 1, "epochs": 1, "unlearn_epochs": 1}  # has findings
GRID = {"tasks": [SMALL], "attacks": ["badnets"], "doses": [0, 4], "defenses": ["none", SHOWS], "seeds": [0]}


def run(folder: Path, **changes: object) -> Store:
    todo = make_plan(grid_from_mapping({**GRID, **changes}), Store(folder))
    list(execute(todo, Settings(store=str(folder), threads=1), jobs=0))
    return Store(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with findings. Tests copy it."""
    return run(tmp_path_factory.mktemp("whole") / "run").root


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Store:
    return Store(shutil.copytree(whole, tmp_path / "run"))


def one(store: Store, folder: str, ending: str) -> Path:
    return sorted((store.root / folder).rglob(f"*{ending}"))[0]


def test_a_run_is_as_it_was_written(store: Store) -> None:
    found = verify(store)
    assert found.problems == []
    assert found.files == len(list((store.root / "records").iterdir())) + sum(
        len([p for p in (store.root / folder).rglob("*") if p.is_file()]) for folder in ("artefacts", "findings")
    )
    first = ledger.read_ledger(store.root)[0]
    assert first.event == "run"
    assert first.about["to_run"] == 4
    assert "@" in first.about["by"]
    assert verify(store, head=found.heads[0][:12]).problems == []


def change(store: Store) -> None:
    path = one(store, "records", ".json")
    path.write_text(path.read_text().replace('"status": "done"', '"status": "timed out"'))


def flip(store: Store) -> None:
    path = one(store, "artefacts", ".safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # a weight: safetensors still reads it
    path.write_bytes(data)


def forge(store: Store) -> None:
    path = one(store, "records", ".json")
    tree = {**json.loads(path.read_text()), "key": "f" * 32}
    (path.parent / f"{'f' * 32}.json").write_text(json.dumps(tree))


DAMAGE = {
    "a record changed": (change, "is not what was written"),
    "a bit of a victim": (flip, "is not what was written"),
    "a record removed": (lambda store: one(store, "records", ".json").unlink(), "missing"),
    "a finding removed": (lambda store: one(store, "findings", ".png").unlink(), "missing"),
    "a record put there": (forge, "not in the ledger"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_was_altered_removed_or_put_there_is_found(name: str, store: Store) -> None:
    damage, words = DAMAGE[name]
    damage(store)
    (problem,) = verify(store).problems
    assert words in problem
    done = CliRunner().invoke(app, ["verify", str(store.root)])
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda lines: [*lines[:2], *lines[3:]], "line 3 does not follow line 2"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "line 1 does not follow"),
        (lambda lines: [lines[0].replace(b'"to_run":4', b'"to_run":3'), *lines[1:]], "line 1 was changed"),
        (lambda lines: [*lines[:2], b"junk", *lines[2:]], "line 3 is no entry"),
        (lambda lines: [b"[" * 100_000, *lines[1:]], "line 1 is no entry"),
    ],
)
def test_an_edited_ledger_is_found(edit, words: str, store: Store) -> None:  # type: ignore[no-untyped-def]
    path = store.root / ledger.LEDGER_FILE
    path.write_bytes(b"\n".join(edit(path.read_bytes().split(b"\n"))))
    (problem,) = verify(store).problems
    assert words in problem


def test_a_ledger_made_anew_has_another_head(store: Store) -> None:
    (head,), entries = verify(store).heads, ledger.read_ledger(store.root)
    (store.root / ledger.LEDGER_FILE).unlink()
    with ledger.open_ledger(store.root) as book:
        for entry in entries[1:]:
            book.append(entry.event, path=entry.path, sha256=entry.sha256, about=entry.about)
    assert verify(store).problems == [], "the chain alone cannot tell"
    (problem,) = verify(store, head).problems
    assert "made anew" in problem


def test_a_ledger_names_no_file_outside_the_store(store: Store, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with ledger.open_ledger(store.root) as book:
        book.append("file", path="../secret", sha256="0" * 64)
        book.append("file", path="records/../../secret", sha256="0" * 64)
    assert [p.partition(": ")[2] for p in verify(store).problems] == ["the ledger names a file outside the store"] * 2


def test_a_line_that_a_killed_process_left_is_cut_off(store: Store) -> None:
    path = store.root / ledger.LEDGER_FILE
    before = len(ledger.read_ledger(store.root))
    with path.open("ab") as file:
        file.write(b'{"n": 99, "ti')
    assert verify(store).problems == []
    with ledger.open_ledger(store.root) as book:
        assert book.append("run", about={"grid": "x" * 200_000}).n == before + 1
    with ledger.open_ledger(store.root) as book:
        assert book.append("run").n == before + 2, "a line longer than what is read at a time"
    assert verify(store).problems == []


def test_an_entry_whose_file_was_never_written_is_settled_by_the_next_run(store: Store) -> None:
    one(store, "records", ".json").unlink()  # as if killed between the two
    assert len(verify(store).problems) == 1
    run(store.root)
    assert verify(store).problems == []


def append_many(root: Path, count: int) -> None:
    for i in range(count):
        with ledger.open_ledger(root) as book:
            book.append("file", path=f"records/{os.getpid()}-{i}", sha256="0" * 64)


def test_several_processes_write_one_chain(tmp_path: Path) -> None:
    writers = [mp.get_context("fork").Process(target=append_many, args=(tmp_path, 25)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(ledger.read_ledger(tmp_path)) == 100


def test_gc_removes_what_stands_behind_no_record(store: Store) -> None:
    assert find_unreferenced(store) == []
    idle = store.artefact_path("e" * 32)
    store.add_file(idle, b"idle")
    half = store.root / "records" / ".abc.tmp"
    half.write_text("half")
    assert "2 files" in CliRunner().invoke(app, ["gc", str(store.root), "--dry-run"]).output
    assert idle.exists()
    assert CliRunner().invoke(app, ["gc", str(store.root)]).exit_code == 0
    assert not idle.exists()
    assert not half.exists()
    assert verify(store).problems == [], "the ledger says that it was removed"
    todo = make_plan(grid_from_mapping(GRID), store)
    assert todo.missing == []


def test_merge_joins_two_runs_and_keeps_what_is_done(store: Store, tmp_path: Path) -> None:
    other = run(tmp_path / "other", seeds=[0, 1])
    ours = {p.name: p.read_bytes() for p in (store.root / "records").iterdir()}
    copied = merge(store, other)
    assert copied["records"] == 4
    assert copied["artefacts"] > 0
    assert verify(store).problems == []
    assert all((store.root / "records" / name).read_bytes() == data for name, data in ours.items())
    assert len(records.read_plan(store)) == len(records.load_all(store)) == 8
    assert make_plan(grid_from_mapping({**GRID, "seeds": [0, 1]}), store).missing == []
    assert merge(store, other) == {"records": 0, "artefacts": 0, "findings": 0}, "once is enough"
    change(other)
    with pytest.raises(BrokenLedger, match="is not what was written"):
        merge(store, other)


def test_merge_brings_what_failed_here(store: Store, tmp_path: Path) -> None:
    other = Store(shutil.copytree(store.root, tmp_path / "other"))
    record = next(iter(records.load_all(store).values()))
    records.save(store, record.model_copy(update={"status": "failed", "reason": "no luck"}))
    assert merge(store, other)["records"] == 1
    assert records.load_all(store)[record.key] == record


def test_a_damaged_record_is_run_again(store: Store) -> None:
    path = one(store, "records", ".json")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.warns(UserWarning, match="damaged record"):
        (again,) = make_plan(grid_from_mapping(GRID), store).missing
    assert again.key == path.stem


def test_repair_removes_what_is_damaged_and_the_next_run_makes_it_again(store: Store) -> None:
    before = records.load_all(store)
    change(store)
    one(store, "artefacts", ".safetensors").write_bytes(b"junk")
    stray = store.root / "findings" / ("d" * 32) / "stray.png"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"stray")
    done = CliRunner().invoke(app, ["verify", str(store.root), "--repair"])
    assert done.exit_code == 0, done.output
    assert "3 files removed" in done.output
    assert verify(store).problems == []
    assert len(make_plan(grid_from_mapping(GRID), store).missing) == 1
    run(store.root)
    assert verify(store).problems == []
    after = records.load_all(store)
    assert {key: r.metrics for key, r in after.items()} == {key: r.metrics for key, r in before.items()}


def test_gc_and_verify_say_where_there_is_no_run(tmp_path: Path) -> None:
    for verb in ("gc", "verify"):
        done = CliRunner().invoke(app, [verb, str(tmp_path)])
        assert isinstance(done.exception, FileNotFoundError)
        assert "holds no run" in str(done.exception)


def test_every_artefact_of_a_generative_cell_is_kept(tmp_path: Path) -> None:
    """Its base and its judge too, which no fit of the cell names."""
    task = {"name": "synthetic_stories", "train_size": 40, "base_size": 40, "test_size": 10, "epochs": 1, "width": 32,
            "depth": 1, "reserve_size": 10}  # fmt: skip
    store = run(tmp_path / "run", tasks=[task], attacks=["steering"], doses=[2], defenses=["none"])
    (record,) = records.load_all(store).values()
    assert record.status == "done", record.reason
    assert len(record.artefacts) > len({fit["key"] for fit in record.fits})
    assert find_unreferenced(store) == []
    assert maintenance.verify(store).problems == []
