"""Machines that share no folder: parts of a grid, copies on other storage, and one run made of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from harness import ledger, mirror, records
from harness.cli import app
from harness.grid import BadGrid, parse
from harness.ledger import BrokenLedger
from harness.limits import shard
from harness.mirror import BadUrl
from harness.report import cells_frame
from harness.run import execute, plan
from harness.store import Store
from harness.upkeep import merge, verify
from harness.work import Settings

GRID = {
    "tasks": [{"name": "digits", "train_size": 60, "epochs": 1, "test_size": 20}], "attacks": ["badnets"],
    "doses": [0, 2], "defenses": ["none", "oracle"], "seeds": [0, 1],
}  # fmt: skip
TIMES = ["seconds", "fit_seconds"]


def run(root: Path, part: tuple[int, int] = (0, 1)) -> Store:
    store = Store(root)
    todo = plan(parse(GRID), store, shard=part)
    list(execute(todo, Settings(str(root), device="cpu"), jobs=0))
    return store


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    return [run(tmp_path_factory.mktemp("run") / "run", (part, 2)) for part in (0, 1)]


@pytest.fixture
def url() -> Iterator[str]:
    files = fsspec.filesystem("memory")
    yield "memory://mirror/host"
    if files.exists("/mirror"):
        files.rm("/mirror", recursive=True)


def test_parts_of_a_grid_make_the_whole(halves: list[Store], url: str, tmp_path: Path) -> None:
    assert [len(records.load_all(half)) for half in halves] == [4, 4]
    joined = Store(tmp_path / "joined")
    for n, half in enumerate(halves):
        mirror.push(half, f"{url}{n}")
        merge(joined, mirror.fetch(f"{url}{n}", tmp_path / f"copy{n}"))
    assert verify(joined).problems == []
    whole = run(tmp_path / "whole")
    found, wanted = (
        cells_frame(sorted(records.load_all(s).values(), key=lambda r: r.label)).drop(columns=TIMES)
        for s in (joined, whole)
    )
    assert found.equals(wanted)
    assert plan(parse(GRID), joined).todo == []


def test_a_push_copies_what_is_new(halves: list[Store], url: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    merge(store, halves[0])
    everything = mirror.push(store, url)
    assert everything == len(ledger.files(ledger.read(store.root)))
    assert mirror.push(store, url) == 0
    merge(store, halves[1])
    assert 0 < mirror.push(store, url) < everything + 4
    assert verify(mirror.fetch(url, tmp_path / "copy")).problems == []


def test_a_push_that_was_cut_leaves_the_mirror_as_it_was(halves: list[Store], url: str, tmp_path: Path) -> None:
    mirror.push(halves[0], url)
    fsspec.filesystem("memory").pipe_file("/mirror/host/records/" + "a" * 32 + ".json", b"half of")
    assert verify(mirror.fetch(url, tmp_path / "copy")).problems == []


def test_another_run_is_not_written_over(halves: list[Store], url: str) -> None:
    mirror.push(halves[0], url)
    with pytest.raises(BrokenLedger, match="holds another run; give every machine a URL of its own"):
        mirror.push(halves[1], url)


def test_what_was_altered_on_the_way_is_refused(halves: list[Store], url: str, tmp_path: Path) -> None:
    mirror.push(halves[0], url)
    files = fsspec.filesystem("memory")
    record = next(path for path in files.find("/mirror/host/records"))
    files.pipe_file(record, files.cat_file(record).replace(b'"dose"', b'"Dose"'))
    with pytest.raises(BrokenLedger, match="is not what was written"):
        merge(Store(tmp_path / "run"), mirror.fetch(url, tmp_path / "copy"))


def test_a_ledger_cannot_name_a_file_outside(url: str, tmp_path: Path) -> None:
    with ledger.opened(tmp_path / "evil") as book:
        book.append("file", path="../outside.txt", sha256="0" * 64)
    files = fsspec.filesystem("memory")
    files.pipe_file("/mirror/outside.txt", b"evil")
    files.pipe_file("/mirror/host/ledger.jsonl", (tmp_path / "evil" / "ledger.jsonl").read_bytes())
    with pytest.raises(BrokenLedger, match="outside the store"):
        merge(Store(tmp_path / "run"), mirror.fetch(url, tmp_path / "copy"))
    assert not (tmp_path / "outside.txt").exists()


def test_from_the_command_line(halves: list[Store], tmp_path: Path) -> None:
    url = f"file://{tmp_path}/mirror"
    done = CliRunner().invoke(app, ["push", str(halves[0].root), url])
    assert done.exit_code == 0, done.output
    assert f"files copied to {url}" in " ".join(done.output.split())
    done = CliRunner().invoke(app, ["merge", str(tmp_path / "all"), url])
    assert done.exit_code == 0, done.output
    assert "4 records" in done.output
    with pytest.raises(BadUrl, match="Protocol not known: nowhere"):
        mirror.push(halves[0], "nowhere://bucket")
    with pytest.raises(FileNotFoundError, match="holds no run; `tinydrop push` one there"):
        mirror.fetch(f"file://{tmp_path}/empty", tmp_path / "copy")


def test_a_part_as_people_write_it() -> None:
    assert [shard(text) for text in ("1/1", "2/4", " 4/4 ")] == [(0, 1), (1, 4), (3, 4)]
    for wrong in ("0/4", "5/4", "2", "a/b", "1/0", ""):
        with pytest.raises(BadGrid, match=r"--shard .*: write which part of how many, from 1/4 to 4/4"):
            shard(wrong)
