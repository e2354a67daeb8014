"""A run as an archive: what was packed can be shown elsewhere, what was touched is refused in one line."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.app import app
from harness.errors import BadSubmission, NewerSchema, Refused
from harness.grid.mapping import grid_from_mapping
from harness.run.execute import execute
from harness.run.plan import make_plan
from harness.run.settings import Settings
from harness.site.archive import MANIFEST, pack, unpack
from harness.site.plausibility import OF_CHALLENGE
from harness.site.sources import join_sources, open_sources
from harness.store import ledger, records
from harness.store.folder import Store

SMALL = {"name": "digits", "train_size": 150, "epochs": 1, "test_size": 60}
SHOWS = {"name": "neural_cleanse", "clean_rows": 20, "starts": 1, "epochs": 1, "unlearn_epochs": 1}  # has findings
GRID = {"tasks": [SMALL], "attacks": ["badnets"], "doses": [0, 4], "defenses": ["none", SHOWS], "seeds": [0]}
STORIES = {"name": "synthetic_stories", "train_size": 40, "base_size": 40, "test_size": 10, "epochs": 1, "width": 32,
           "depth": 1, "reserve_size": 10}  # fmt: skip
ODD = {
    "tasks": [{**SMALL, "test_size": 61}], "attacks": ["badnets", "none"], "doses": [3], "seeds": [0],
    "defenses": ["none", "strip", "outlier", "onion"],
    "also": [{"tasks": [{"name": "digits", "epochs": 1}], "attacks": ["label_flip"], "defenses": ["none"],
              "seeds": [0, 1]},
             {"tasks": [STORIES], "attacks": ["steering", "gibberish"], "doses": [4], "defenses": ["none"]},
             {"tasks": [SMALL], "attacks": ["badnets"], "doses": [10**6], "defenses": ["none"]}],
}  # fmt: skip

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A finished run with findings."""
    store = Store(tmp_path_factory.mktemp("whole") / "run")
    list(execute(make_plan(grid_from_mapping(GRID), store), Settings(store=str(store.root), threads=1), jobs=0))
    return store


@pytest.fixture(scope="module")
def archive(run: Store) -> Path:
    path = run.root.parent / "mine.zip"
    pack(run, path)
    return path


def rewritten(archive: Path, to: Path, edit: Callable[[Files], None]) -> Path:
    """A copy of the archive whose files were edited."""
    with zipfile.ZipFile(archive) as old:
        files = {name: old.read(name) for name in old.namelist()}
    edit(files)
    with zipfile.ZipFile(to, "w") as new:
        for name, data in files.items():
            new.writestr(name, data)
    return to


def a_record(files: Files) -> str:
    return next(name for name in files if name.startswith("records/") and b'"dose": 4' in files[name])


def agree(files: Files, head: str = "") -> None:
    """Make the manifest say what the files are."""
    tree = json.loads(files[MANIFEST])
    tree["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != MANIFEST}
    tree["head"] = head or tree["head"]
    files[MANIFEST] = json.dumps(tree).encode()


def improve(files: Files) -> None:
    """A better number than was measured."""
    name = a_record(files)
    tree = json.loads(files[name])
    tree["metrics"]["asr"]["value"] = 0.123
    files[name] = json.dumps(tree).encode()


def cut(files: Files, last: int) -> str:
    """Lose the newest entries of the ledger; the hash of the last one left."""
    lines = files[ledger.LEDGER_FILE].splitlines(keepends=True)[:-last]
    files[ledger.LEDGER_FILE] = b"".join(lines)
    return str(json.loads(lines[-1])["hash"])


def test_a_good_archive_is_the_run_without_its_weights(run: Store, archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        names = set(packed.namelist())
    assert names >= {MANIFEST, ledger.LEDGER_FILE, "plan.json"}
    assert {n for n in names if n.startswith("records/")} == {
        f"records/{p.name}" for p in (run.root / "records").iterdir()
    }
    assert any(n.endswith(".png") for n in names), "what neural_cleanse found can be looked at"
    assert not any(n.endswith(".safetensors") for n in names)
    with unpack(archive) as store:
        assert records.load_all(store) == records.load_all(run)
        folder = store.root
    assert not folder.exists()


def test_the_same_run_gives_the_same_bytes(run: Store, archive: Path, tmp_path: Path) -> None:
    pack(run, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_an_archive_stands_beside_folders(run: Store, archive: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run.root, tmp_path / "copy")
    with open_sources([copy, archive]) as found:
        both = join_sources(found)
    assert len(both.cells) == 4, "the same records: no cell counts twice"
    assert set(both.cells.source) == {found[0].name}
    assert both.repeated.empty, "a copy is no repetition"
    assert found[1].head == ledger.read_ledger(run.root)[-1].hash


def forge_and_agree(files: Files) -> None:
    improve(files)
    agree(files)


def cut_and_agree(files: Files) -> None:
    agree(files, head=cut(files, 2))


def cut_the_end(files: Files) -> None:
    cut(files, 2)  # the last file's entry and the end of the run
    agree(files)


def cut_the_middle(files: Files) -> None:
    lines = files[ledger.LEDGER_FILE].splitlines(keepends=True)
    files[ledger.LEDGER_FILE] = b"".join([*lines[:3], *lines[4:]])
    agree(files)


def leave_out(files: Files) -> None:
    files.pop(a_record(files))
    agree(files)


def escape(files: Files) -> None:
    files["../../outside.json"] = b"{}"
    agree(files)


def overwrite(files: Files) -> None:
    files["findings/" + "a" * 32 + "/../../x.png"] = b""
    agree(files)


def absolute(files: Files) -> None:
    files["/etc/passwd"] = b""
    agree(files)


def weigh(files: Files) -> None:
    files["artefacts/aa/" + "a" * 32 + ".safetensors"] = b""
    agree(files)


def unplan(files: Files) -> None:
    files["plan.json"] = b'{"grid": {}, "cells": [{}]}'
    agree(files)


FORGED = {
    "a damaged plan": (unplan, r"plan.json: is no plan \('cells.0.key': Field required"),
    "an altered record": (improve, "does not have the hash that manifest.json lists"),
    "an altered record and manifest": (forge_and_agree, "is not what was written"),
    "a cut ledger": (cut_the_end, "not in the ledger"),
    "a cut ledger and manifest": (cut_and_agree, "not in the ledger"),
    "a ledger without a line": (cut_the_middle, "does not follow"),
    "a record left out": (leave_out, "missing"),
    "a file that nobody announced": (lambda files: files.update({"records/" + "a" * 32 + ".json": b"{}"}), "only in"),
    "no manifest": (lambda files: files.pop(MANIFEST) and None, "has no manifest.json"),
    "a damaged manifest": (lambda files: files.update({MANIFEST: b"[" * 50_000}), "manifest.json: damaged"),
    "a name that leaves the archive": (escape, "unexpected file"),
    "a name that climbs": (overwrite, "unexpected file"),
    "an absolute name": (absolute, "unexpected file"),
    "weights": (weigh, "unexpected file"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_or_damaged_archive_is_refused(name: str, archive: Path, tmp_path: Path) -> None:
    edit, words = FORGED[name]
    bad = rewritten(archive, tmp_path / "bad.zip", edit)  # type: ignore[arg-type]
    with pytest.raises(BadSubmission, match=words) as caught, unpack(bad):
        pass
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.zip"], "nothing was written outside"


def signed_by_its_own_ledger(archive: Path, to: Path, change: Callable[[dict[str, object]], None]) -> Path:
    """A run that was made up from the start: its ledger and manifest hold, only its numbers cannot be."""

    def edit(files: Files) -> None:
        name = a_record(files)
        tree = json.loads(files[name])
        change(tree)
        files[name] = json.dumps(tree).encode()
        chain, previous = [], ledger.NO_PREVIOUS
        for line in files[ledger.LEDGER_FILE].splitlines():
            entry = ledger.LedgerEntry.model_validate_json(line)
            sha = hashlib.sha256(files[name]).hexdigest() if entry.path == name else entry.sha256
            entry = entry.model_copy(update={"sha256": sha, "previous": previous})
            entry = entry.model_copy(update={"hash": entry.digest()})
            previous = entry.hash
            chain.append(entry.model_dump_json().encode())
        files[ledger.LEDGER_FILE] = b"\n".join(chain) + b"\n"
        agree(files, head=previous)

    return rewritten(archive, to, edit)


IMPOSSIBLE = {
    "asr 1.5 is a share": lambda r: r["metrics"]["asr"].update(value=1.5),
    "utility -0.1 must be finite": lambda r: r["metrics"]["utility"].update(value=-0.1),
    "'metrics.utility.value': Input should be a finite number": lambda r: r["metrics"]["utility"].update(
        value=float("inf")
    ),
    "'metrics.asr.n': Input should be less than or equal to": lambda r: r["metrics"]["asr"].update(n=10**400),
    "asr is the mean of 0 items": lambda r: r["metrics"]["asr"].update(n=0),
    "dose 4 is more than the 3 training rows": lambda r: r.update(train_size=3),
    "is not that of its parts": lambda r: r.update(seed=7),
    "is not one of 'badnets'": lambda r: (
        r["attack"].update(label="blended"), r.update(label=r["label"].replace("badnets", "blended")),
    ),
    "is done and has no utility": lambda r: r["metrics"].pop("utility"),
    "seconds must be finite": lambda r: r.update(fit_seconds=-1.0),
    "findings of another cell": lambda r: r.update(findings={"x.png": "findings/" + "b" * 32 + "/x.png"}),
    "is the record of another cell: its key is 'bbb": lambda r: r.update(key="b" * 32),
    "'bonus': Extra inputs": lambda r: r.update(bonus=1),
    "asr 0.0123 is no share of": lambda r: r["metrics"]["asr"].update(value=0.0123),
    "utility 0.0123 is no share of 60": lambda r: r["metrics"]["utility"].update(value=0.0123),
    "and asr of 1$": lambda r: r["metrics"]["asr"].update(value=0.0, n=1),
    "and utility of 1$": lambda r: r["metrics"]["utility"].update(value=1.0, n=1),
    "utility is the mean of 30 items, and test_size is 60": lambda r: [
        r["metrics"][name].update(value=0.0, n=30) for name in ("utility", "clean_abstained")
    ],
    "asr is the mean of (1 items.* of 5[0-9]|5[0-9] items.* of 1)$": lambda r: [
        m.update(value=0.0, n=1) for name, m in r["metrics"].items() if OF_CHALLENGE.fullmatch(name)
    ],
    "/badnets/1/.* but plan.json has .*/badnets/4/": lambda r: r.update(
        dose=1, label=r["label"].replace("/4/", "/1/")
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", IMPOSSIBLE)
def test_numbers_that_cannot_be_are_refused(words: str, archive: Path, tmp_path: Path) -> None:
    bad = signed_by_its_own_ledger(archive, tmp_path / "bad.zip", IMPOSSIBLE[words])  # type: ignore[arg-type]
    with pytest.raises(BadSubmission, match=words), unpack(bad):
        pass


def test_a_made_up_run_that_could_be_is_only_found_by_its_head(archive: Path, tmp_path: Path) -> None:
    """What the checks cannot do is said, and shown: the head is another one."""
    made_up = signed_by_its_own_ledger(archive, tmp_path / "x.zip", lambda r: r["metrics"]["asr"].update(value=0.5))  # type: ignore[attr-defined]
    with open_sources([made_up]) as found, open_sources([archive]) as true:
        assert found[0].head != true[0].head


def test_a_newer_archive_says_so(archive: Path, tmp_path: Path) -> None:
    def edit(files: Files) -> None:
        files[MANIFEST] = json.dumps({**json.loads(files[MANIFEST]), "schema_version": 99, "more": 1}).encode()

    with pytest.raises(NewerSchema, match="schema 99"), unpack(rewritten(archive, tmp_path / "new.zip", edit)):
        pass


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"records/{'a' * 32}.json", bytes(20_000_000))
    assert path.stat().st_size < 100_000
    with (
        pytest.raises(BadSubmission, match="holds 20 MB, more than the limit of 1 MB"),
        unpack(path, largest=1_000_000),
    ):
        pass


def test_links_and_doubles_are_refused(archive: Path, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("plan.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as made:
        made.writestr(link, "/etc/passwd")
    shutil.copy(archive, tmp_path / "double.zip")
    with zipfile.ZipFile(tmp_path / "double.zip", "a") as made, pytest.warns(UserWarning, match="Duplicate"):
        made.writestr("plan.json", "{}")
    for name in ("link", "double"):
        with pytest.raises(BadSubmission, match="symbolic link or duplicate entry"), unpack(tmp_path / f"{name}.zip"):
            pass


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"no zip", lambda data: b""])
def test_half_an_archive_is_refused(damage: Callable[[bytes], bytes], archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.zip"
    path.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(BadSubmission, match="not readable as an archive"), unpack(path):
        pass


def test_flipped_bytes_never_get_through(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    directory = whole.index(b"PK\x01\x02")  # the zip's own table of names, sizes and places
    for at in [*range(0, directory, max(1, directory // 30)), *range(directory, len(whole), 5)]:
        data = bytearray(whole)
        data[at] ^= 0x55
        path = tmp_path / "flipped.zip"
        path.write_bytes(data)
        try:
            with unpack(path) as store, unpack(archive) as true:
                assert records.load_all(store) == records.load_all(true), f"byte {at} says nothing of the records"
        except BadSubmission:
            pass


def test_honest_runs_of_every_kind_can_be(tmp_path: Path) -> None:
    """Several test sets, one-answer attacks, generators, abstentions, failures, and what older code left behind."""
    store = Store(tmp_path / "run")
    settings = Settings(store=str(store.root), threads=1)
    list(execute(make_plan(grid_from_mapping(ODD), store), settings, jobs=0))
    found = records.load_all(store)
    assert {r.status for r in found.values()} == {"done", "failed", "not applicable"}
    assert {r.metrics["asr"].n for r in found.values() if r.attack.name == "label_flip"} == {1}
    assert any(r.metrics["clean_abstained"].value > 0 for r in found.values() if "clean_abstained" in r.metrics)
    done = next(r for r in found.values() if r.attack.name == "badnets" and r.status == "done")
    older = {name: m.model_copy(update={"n": 1, "value": 1.0}) if OF_CHALLENGE.fullmatch(name) else m
             for name, m in done.metrics.items()}  # fmt: skip
    records.save(store, done.model_copy(update={"key": "c" * 32, "metrics": older, "findings": {}}))
    pack(store, tmp_path / "odd.zip")
    with open_sources([tmp_path / "odd.zip", store.root]) as both:
        assert len(join_sources(both).cells) == len(found), "what the plan does not name is not shown"
    same = make_plan(grid_from_mapping({**ODD, "attacks": [{"name": "badnets", "target": 0}, "none"]}), store)
    assert not same.missing, "a default that is spelt out"
    list(execute(same, settings, jobs=0))
    pack(store, tmp_path / "again.zip")
    with unpack(tmp_path / "again.zip"):
        pass


def test_the_command_packs_and_refuses(run: Store, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["submit", str(run.root), "-o", str(tmp_path / "a.zip")])
    assert done.exit_code == 0, done.output
    assert "4 records" in done.output
    assert ledger.read_ledger(run.root)[-1].hash in done.output
    copy = Store(shutil.copytree(run.root, tmp_path / "copy"))
    next((copy.root / "records").iterdir()).write_text("{}")
    refused = CliRunner().invoke(app, ["submit", str(copy.root), "-o", str(tmp_path / "b.zip")])
    assert isinstance(refused.exception, BadSubmission)
    assert isinstance(refused.exception, Refused)
    assert "is not what was written" in str(refused.exception)
    assert not (tmp_path / "b.zip").exists()
