"""Runs on storage that is no folder: several machines at one URL, leases, and what a dead machine leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
from helpers import ROOT, command, grid_file, invoke, table, tinydrop
from typer.testing import CliRunner

from harness.cli.app import app
from harness.errors import BrokenLedger
from harness.grid.mapping import grid_from_mapping
from harness.run.execute import execute
from harness.run.plan import make_plan, recorded_cells
from harness.run.settings import Settings
from harness.store import leases, ledger, maintenance, records, remote
from harness.store.folder import Store
from harness.store.open import open_store
from harness.store.remote import RemoteStore, open_url
from harness.store.storage import Storage

GRID = {
    "tasks": [{"name": "digits", "train_size": 60, "epochs": 1, "test_size": 20}], "attacks": ["badnets"],
    "doses": [0, 2], "defenses": ["none", "oracle"], "seeds": [0, 1],
}  # fmt: skip
COSTS = ["seconds", "fit_seconds", "peak_memory_bytes"]
KEY = "0123456789abcdef" * 2
Machine = Callable[[str], RemoteStore]


@pytest.fixture
def url() -> Iterator[str]:
    files = fsspec.filesystem("memory")
    yield "memory://bucket/mine"
    if files.exists("/bucket"):
        files.rm("/bucket", recursive=True)


@pytest.fixture
def machine(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The URL's store as the machine of that name has it."""

    def of(name: str) -> RemoteStore:
        monkeypatch.setenv(remote.CACHE, str(tmp_path / name))
        return open_url(url)

    return of


def run(store: Store, part: tuple[int, int] = (0, 1)) -> int:
    """How many cells were run now."""
    store.pull()
    todo = make_plan(grid_from_mapping(GRID), store, shard=part)
    list(execute(todo, Settings(str(store.root), device="cpu"), jobs=0))
    return len(todo.missing)


def measured(store: Store) -> pd.DataFrame:
    frame = recorded_cells(make_plan(grid_from_mapping(GRID), store), store).drop(columns=COSTS)
    return frame.drop(columns=["commit", "libraries"], errors="ignore")


def test_what_one_machine_has_done_no_other_does(machine: Machine, tmp_path: Path) -> None:
    assert run(machine("one"), (0, 2)) == 4
    other = machine("other")
    assert run(other) == 4, "the other half"
    assert run(machine("third")) == 0
    whole = Store(tmp_path / "whole")
    run(whole)
    assert measured(machine("third")).equals(measured(whole))
    found = maintenance.verify(other)
    assert (found.problems, len(found.heads)) == ([], 3), "a chain for every machine"
    assert maintenance.verify(Store(other.root)).problems == [], "a working copy is a run like any other"
    assert isinstance(open_store(other.root), RemoteStore)


def test_artefacts_come_when_they_are_asked_for(machine: Machine) -> None:
    run(machine("one"))
    (artefact, *_) = [name for name in machine("one").names() if name.startswith("artefacts/")]
    other = machine("other")
    other.pull()
    assert not (other.root / artefact).exists()
    assert other.load_tensors(Path(artefact).stem)
    assert (other.root / artefact).exists()
    assert other.load_tensors(KEY) is None


def test_a_lease_is_for_one_machine(machine: Machine) -> None:
    one, other = machine("one"), machine("other")
    with one.claim(KEY) as mine, other.claim(KEY, wait=False) as theirs:
        assert (mine, theirs) == (True, False)
    with other.claim(KEY, wait=False) as theirs:
        assert theirs, "it was given back"
    assert one.leftovers() == [], "and is gone"


def test_who_waits_for_a_lease_gets_it_and_the_record_that_was_made(machine: Machine) -> None:
    one, other = machine("one"), machine("other")
    run(one, (0, 2))
    key = next(iter(records.load_all(one)))
    with other.claim(key):
        assert records.load_settled(other, key), "as it was claimed"


def test_a_machine_that_is_gone_loses_its_lease_and_one_that_works_does_not(machine: Machine, monkeypatch: Any) -> None:
    monkeypatch.setenv(leases.LEASE, "0.5")
    one, other, third = machine("one"), machine("other"), machine("third")
    assert one.leases.take(KEY, wait=False) == 1  # and nobody renews it
    assert other.leases.take(KEY, wait=False) == 0
    start = time.monotonic()
    assert other.leases.take(KEY, wait=True) == 2
    assert time.monotonic() - start > 0.5
    assert third.leases.take(KEY, wait=False) == 0, "one of two is held"
    key = KEY[::-1]
    with one.claim(key):
        start = time.monotonic()
        monkeypatch.setattr(Storage, "create", _patient(Storage.create, start + 1.5))
        with pytest.raises(TimeoutError):
            other.leases.take(key, wait=True)


def _patient(create: Any, end: float) -> Any:
    def until(self: Storage, name: str, data: bytes) -> None:
        if time.monotonic() > end:
            raise TimeoutError
        assert name.endswith(".1"), "a lease that is renewed was taken"
        create(self, name, data)

    return until


def test_what_a_dead_process_of_this_machine_held_is_taken_at_once(machine: Machine) -> None:
    assert machine("one").leases.take(KEY, wait=False) == 1
    with machine("one").claim(KEY, wait=False) as mine:
        assert mine
    assert machine("one").leftovers() == []


def test_a_file_that_was_cut_short_is_made_whole(machine: Machine) -> None:
    one = machine("one")
    run(one)
    files = fsspec.filesystem("memory")
    for top in ("records", "artefacts"):
        path = files.find(f"/bucket/mine/{top}")[0]
        files.pipe_file(path, files.cat_file(path)[:50])
    assert len(maintenance.verify(one).problems) == 2
    assert run(one) == 0
    assert maintenance.verify(one).problems == []


def test_a_copy_that_is_damaged_here_is_taken_again_and_never_handed_over(machine: Machine, url: str) -> None:
    one = machine("one")
    run(one)
    before = {name: one.read(name) for name in one.names()}
    record, other = sorted(one.root.glob("records/*.json"))[:2]
    record.write_bytes(record.read_bytes()[:100])
    other.write_bytes(other.read_bytes().replace(b'"dose": 0', b'"dose": 2').replace(b'"seed": 0', b'"seed": 1'))
    artefact = next(one.root.glob("artefacts/*/*.safetensors"))
    artefact.write_bytes(artefact.read_bytes()[:100])
    one.push()
    assert {name: one.read(name) for name in one.names()} == before
    done = CliRunner().invoke(app, ["verify", url])
    assert done.exit_code == 0, done.output
    assert all((one.root / name).read_bytes() == data for name, data in before.items() if name.startswith("records/"))


def test_a_damaged_record_is_run_again_elsewhere(machine: Machine) -> None:
    run(machine("one"))
    files = fsspec.filesystem("memory")
    files.pipe_file(files.find("/bucket/mine/records")[0], b"{")
    other = machine("other")
    assert run(other) == 1
    assert set(measured(other).status) == {"done"}
    third = machine("third")
    third.pull()
    assert len(records.load_all(third)) == 8, "the damaged file was made whole"


def test_the_first_of_two_records_stays(machine: Machine) -> None:
    """A machine that was taken for dead and was not."""
    one, other = machine("one"), machine("other")
    run(one)
    path = next(one.root.glob("records/*.json"))
    record = records.load(path)
    assert record
    records.save(other, record.model_copy(update={"reason": "the second"}))
    assert json.loads(one.read(f"records/{path.name}"))["reason"] == ""
    other.push()
    assert json.loads(one.read(f"records/{path.name}"))["reason"] == ""
    assert maintenance.verify(one).problems == []


def test_names_that_lead_elsewhere_are_not_taken_over(machine: Machine, tmp_path: Path) -> None:
    run(machine("one"))
    files = fsspec.filesystem("memory")
    for name in ("../outside.txt", "a b.json", "$(x).json"):
        files.store[f"/bucket/mine/records/{name}"] = fsspec.implementations.memory.MemoryFile(
            files, f"/bucket/mine/records/{name}", b"evil"
        )
    other = machine("other")
    other.pull()
    taken = {p.name for p in other.root.rglob("*") if p.is_file()}
    assert not taken & {"outside.txt", "a b.json", "$(x).json"}
    assert not list(tmp_path.rglob("outside.txt"))


def test_a_chain_that_names_a_file_outside_is_refused(machine: Machine, tmp_path: Path) -> None:
    with ledger.open_ledger(tmp_path / "evil") as book:
        book.append("file", path="../outside.txt", sha256="0" * 64)
    run(machine("one"))
    machine("one").storage.put(f"{remote.LEDGERS}/evil.jsonl", (tmp_path / "evil" / ledger.LEDGER_FILE).read_bytes())
    with pytest.raises(BrokenLedger, match="outside the store"):
        maintenance.merge(Store(tmp_path / "all"), machine("one"))


def test_an_altered_record_and_a_shortened_chain_are_found(machine: Machine) -> None:
    one = machine("one")
    run(one)
    name = one.names()[-1]
    record = one.read(name)
    one.storage.put(name, record.replace(b'"dose"', b'"Dose"'))
    assert maintenance.verify(one).problems == [f"{name}: is not what was written"]
    one.storage.put(name, record)
    head = maintenance.verify(one).heads[0]
    one.storage.put(one._chain, b"".join(one.ledgers()[one._chain].splitlines(keepends=True)[:-3]))
    assert any("--head" in problem for problem in maintenance.verify(one, head).problems)
    longer = one.ledgers()[one._chain] + b"and more\n"
    one.storage.put(one._chain, longer)
    with pytest.raises(BrokenLedger, match=r"says more than .* which is an older copy"):
        one.push()


def test_gc_and_merge_of_a_url(machine: Machine, url: str, tmp_path: Path) -> None:
    one = machine("one")
    run(one)
    one.leases.take(KEY, wait=False)
    one.save_tensors(KEY, {})
    done = CliRunner().invoke(app, ["gc", url])
    assert "2 files" in done.output, "an artefact behind no record, and the lease of a dead machine"
    other = machine("other")
    other.pull()
    assert maintenance.verify(other).problems == [], "what one machine removed is missed by no other"
    into = tmp_path / "all"
    done = CliRunner().invoke(app, ["merge", str(into), url])
    assert "8 records" in done.output, done.output
    assert maintenance.verify(Store(into)).problems == []
    back = f"file://{tmp_path}/shelf"
    done = CliRunner().invoke(app, ["merge", back, str(into)])
    assert f"8 records, 6 artefacts, 8 findings copied into {back}" in " ".join(done.output.split())
    done = CliRunner().invoke(app, ["verify", back])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(app, ["status", back]).output.startswith("8 done")


@pytest.mark.parametrize("url", ["nowhere://bucket/mine", "s3://", "http://127.0.0.1:1/mine"])
def test_storage_that_cannot_be_used_is_one_line(tmp_path: Path, url: str) -> None:
    done = tinydrop("run", grid_file(tmp_path), "--out", url, TINYDROP_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith(f"error: URL: '{url}': "), done.stderr
    assert "Traceback" not in done.stderr


def test_a_patience_that_is_no_number_is_one_line(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/url"
    done = tinydrop("run", grid_file(tmp_path), "--out", url, TINYDROP_CACHE=str(tmp_path / "c"), TINYDROP_LEASE="soon")
    assert done.returncode == 2
    assert done.stderr.startswith("error: TINYDROP_LEASE='soon': seconds without a sign of life"), done.stderr


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    """An S3 server on this machine: environment variables that lead there, with the bucket `results`."""
    if find_spec("s3fs") is None or find_spec("moto") is None:
        pytest.skip('needs s3fs and moto: pip install -e ".[dev]"')
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1",
        "FSSPEC_S3_ENDPOINT_URL": f"http://{host}:{port}",
    }  # fmt: skip
    make = "import s3fs; s3fs.S3FileSystem().mkdir('results')"
    subprocess.run([sys.executable, "-c", make], env={**os.environ, **environment}, check=True)
    yield environment
    server.stop()


def test_machines_at_one_bucket_one_of_them_killed(tmp_path: Path, bucket: dict[str, str]) -> None:
    """Nothing is lost, nothing run twice but what the killed one had at hand, and the table is that of a folder."""
    url = "s3://results/mine"
    grid = grid_file(tmp_path)
    assert invoke("run", grid, "--out", tmp_path / "whole", "--jobs", 0).exit_code == 0
    words = command("run", grid, "--out", url, "--jobs", 0)

    def start(name: str) -> subprocess.Popen[str]:
        environment = {**os.environ, **bucket, "TINYDROP_CACHE": str(tmp_path / name), "TINYDROP_LEASE": "8"}
        return subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    killed, other = start("killed"), start("other")
    end = time.monotonic() + 200
    while not list((tmp_path / "killed").glob("*/records/*.json")) and time.monotonic() < end:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    _, said = other.communicate(timeout=300)
    assert other.returncode == 0, said
    (copy,) = (tmp_path / "other").iterdir()
    assert table(copy).equals(table(tmp_path / "whole"))
    for verb in ("verify", "status"):
        done = tinydrop(verb, url, **bucket, TINYDROP_CACHE=str(tmp_path / "third"))
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("12 done")
    (third,) = (tmp_path / "third").iterdir()
    made = [json.loads(path.read_bytes()) for path in third.glob("records/*.json")]
    assert len(made) == 12, "no record is doubled"
    trained = Counter(fit["key"] for record in made for fit in record["fits"] if fit["trained"])
    assert set(trained.values()) == {1}, "no victim is trained for two records"
