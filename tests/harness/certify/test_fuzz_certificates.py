"""A forged certificate is refused: changed bytes, edited numbers, links, foreign signatures. And the file is named.

TINYDROP_FUZZ=2000 tries that many of each (the default is a hundred; a check takes a tenth of a second).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from certified import make_key, write_audit, write_run, write_vet
from draws import LEAVES, TREES, many
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.certify import sign
from harness.certify.check import check
from harness.certify.documents import make_documents
from harness.certify.schema import Certificate
from harness.certify.write import certify, hashes, write_files
from harness.cli.app import app
from harness.errors import BadEvidence, NewerSchema
from harness.store import ledger
from harness.store.folder import Store

CODE = {"tinydrop": "0", "commit": "c", "dirty": False}
MAIN, SIGNATURE = "certificate.json", "signature.json"
STATED = {"schema", "date", "written_by", "suite", "subjects", "files"}  # by the signer, or made of the files

Files = dict[str, bytes]


def files_of(folder: Path) -> Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Made:
    """Two certificates by one key: one of an audit and a vetting, and one of a run."""

    def __init__(self, folder: Path) -> None:
        key = make_key(folder)
        small = [write_audit(folder / "audit", share=0.7), write_vet(folder / "vet", flagged=30)]
        certify(small, folder / "small", CODE, signer=sign.read_private(key))
        certify([write_run(folder / "mine", doses=(0, 20))], folder / "run", CODE, signer=sign.read_private(key))
        self.small, self.run = files_of(folder / "small"), files_of(folder / "run")
        self.verifier: Callable[[], Any] = lambda: sign.read_public(key.with_name("public.pem"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


def problems(files: Files, verifier: Any = None) -> list[str]:
    """What is wrong with a certificate of these files; every problem is one line."""
    with TemporaryDirectory() as folder:
        write_files(Path(folder), files)
        found = check(Path(folder), verifier).problems
    assert all(line == " ".join(line.split("\n")) and folder not in line for line in found)
    return found


def with_hashes(files: Files, tree: dict[str, Any]) -> Files:
    """The files with this certificate, its hashes and its signature-free documents made anew: forged without a key."""
    rest = {name: data for name, data in files.items() if name not in (MAIN, SIGNATURE)}
    certificate = Certificate.model_validate_json(json.dumps(tree | {"files": {}}))
    rest |= make_documents(certificate)
    return rest | {MAIN: certificate.model_copy(update={"files": hashes(rest)}).as_json()}


def leaves(tree: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Path and value of everything that is no list and no mapping."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if inner is None:
        yield way, tree
    else:
        for step, value in inner:
            yield from leaves(value, (*way, step))


def other(value: Any) -> Any:
    """Another value of the same type."""
    if value is None:
        return 1
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1 if value > 1 else value / 2 + 0.25 if isinstance(value, float) else value + 1
    return f"{value}x"


def test_what_was_not_touched_is_in_order(made: Made) -> None:
    for files in (made.small, made.run):
        assert problems(files, made.verifier()) == []


@many
@given(data=st.data())
def test_any_changed_byte_is_refused_and_its_file_named(made: Made, data: st.DataObject) -> None:
    """Also by whoever makes the listed hashes anew: he has no key."""
    name = data.draw(st.sampled_from(sorted(made.small)))
    old = made.small[name]
    at = data.draw(st.integers(0, len(old) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "swap", "remove"]))
    files = dict(made.small)
    if kind == "flip":
        files[name] = old[:at] + bytes([old[at] ^ data.draw(st.integers(1, 255))]) + old[at + 1 :]
    elif kind == "cut":
        files[name] = old[:at]
    elif kind == "insert":
        files[name] = old[:at] + data.draw(st.binary(min_size=1, max_size=4)) + old[at:]
    elif kind == "swap":
        with_ = data.draw(st.sampled_from(sorted(set(made.small) - {name})))
        files[name], files[with_] = files[with_], old
    else:
        del files[name]
    if MAIN not in files:
        with pytest.raises(BadEvidence, match="holds no certificate"):
            problems(files, made.verifier())
        return
    found = problems(files, made.verifier())
    assert any(line.replace("'", "").startswith(f"{name}:") for line in found), found


@many
@given(data=st.data())
def test_an_edited_number_with_all_hashes_made_anew_is_refused_without_any_key(
    made: Made, data: st.DataObject
) -> None:  # fmt: skip
    """Every field but the signer's own statements follows from the evidence. The field is named."""
    files = data.draw(st.sampled_from([made.small, made.small, made.small, made.run]))
    tree = json.loads(files[MAIN])
    way, value = data.draw(st.sampled_from([leaf for leaf in leaves(tree) if leaf[0][0] not in STATED]))
    changed = deepcopy(tree)
    inner = changed
    for step in way[:-1]:
        inner = inner[step]
    inner[way[-1]] = other(value)
    try:
        forged = with_hashes(files, changed)
    except Exception:  # beyond the schema, or a document cannot be made of it: the certificate alone is forged
        forged = files | {MAIN: json.dumps(changed, indent=1, ensure_ascii=False).encode() + b"\n"}
    found = problems(forged)
    assert any(line.startswith(f"{MAIN}: {'.'.join(map(str, way))}") for line in found), (way, found)


@many
@given(data=st.binary(max_size=60) | TREES.map(lambda tree: json.dumps(tree).encode()), name=st.sampled_from(
    [MAIN, SIGNATURE, "evidence/1/audit.json", "evidence/2/vet.json"]
))  # fmt: skip
@example(data=b"[" * 100_000, name=MAIN)
@example(data=b'{"schema": 1e999}', name=MAIN)
@example(data=b"\xff", name=SIGNATURE)
@example(data=b'{"a": 1, "a": 2}', name="evidence/2/vet.json")
def test_anything_at_all_in_place_of_a_file_is_refused(made: Made, data: bytes, name: str) -> None:
    found = problems(made.small | {name: data}, made.verifier())
    assert any(line.replace("'", "").startswith(name) for line in found), found


@many
@given(data=st.data(), leaf=LEAVES)
def test_any_value_in_any_field_is_refused(made: Made, data: st.DataObject, leaf: Any) -> None:
    """Whatever its type: never a traceback, and never taken. Documents and hashes are left as they are."""
    tree = json.loads(made.small[MAIN])
    way, value = data.draw(st.sampled_from(list(leaves(tree))))
    inner = tree
    for step in way[:-1]:
        inner = inner[step]
    inner[way[-1]] = leaf
    if json.dumps(leaf) == json.dumps(value):
        return
    files = made.small | {MAIN: json.dumps(tree, indent=1, ensure_ascii=True).encode() + b"\n"}
    try:
        assert problems(files, made.verifier())
    except NewerSchema:
        assert way == ("schema",)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "evidence/1/../../x", "evidence/1/records/x", "a\nb", ""])
def test_no_listed_path_leaves_the_folder(made: Made, name: str, tmp_path: Path) -> None:
    tree = json.loads(made.small[MAIN])
    tree["files"][name] = "0" * 64
    found = problems(made.small | {MAIN: Certificate.model_validate_json(json.dumps(tree)).as_json()})
    assert any("is no file of a certificate" in line and "files: " in line for line in found)
    tree = json.loads(made.small[MAIN])
    tree["subjects"][0]["folder"] = name or "/"
    found = problems(made.small | {MAIN: json.dumps(tree, indent=1).encode() + b"\n"})
    assert re.match("certificate.json: subjects.0.folder: String should match pattern", found[0])


@pytest.mark.parametrize("name", [MAIN, "evidence/1/audit.json", "index.html", SIGNATURE])
def test_links_and_pipes_are_not_followed(made: Made, name: str, tmp_path: Path) -> None:
    """A link to the very same content, a folder that is one, a pipe, which would never end."""
    folder = tmp_path / "certificate"
    write_files(folder, made.small)
    (tmp_path / "real").write_bytes(made.small[name])
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / "real")
    assert check(folder).problems == [f"{name!r}: is a link, or cannot be read (Too many levels of symbolic links)"]
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert check(folder).problems == [f"{name!r}: is no file"]


def test_a_linked_folder_and_a_file_too_many_are_refused(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "certificate"
    write_files(folder, made.small)
    (folder / "evidence").rename(tmp_path / "evidence")
    (folder / "evidence").symlink_to(tmp_path / "evidence")
    assert check(folder).problems[0].startswith("'evidence': is a link")
    for name in ("payload.pkl", "evidence/1/vet.json", "evidence/3/audit.json", "croissant-9.json", ".hidden"):
        found = problems(made.small | {name: made.small["evidence/1/audit.json"]}, made.verifier())
        assert any(name in line for line in found), name


def test_the_files_may_be_only_so_large(made: Made, tmp_path: Path) -> None:
    write_files(tmp_path, made.small)
    assert "with it the files have more than 0 MB" in check(tmp_path, largest=1000).problems[0]


def test_another_certificates_signature_is_refused(made: Made) -> None:
    found = problems(made.small | {SIGNATURE: made.run[SIGNATURE]}, made.verifier())
    assert "'evidence/1/ledger.jsonl': is missing" in found
    assert "'evidence/1/audit.json': was not signed" in found
    assert f"'{MAIN}': is not what was signed" in found


def test_an_edited_record_breaks_its_ledger(made: Made) -> None:
    """Even where all hashes of the certificate are made anew."""
    name = next(name for name in sorted(made.run) if "/records/" in name)
    files = made.run | {name: made.run[name].replace(b'"value": 0.9', b'"value": 0.8')}
    assert files[name] != made.run[name]
    assert problems(with_hashes(files, json.loads(files[MAIN]))) == [f"{name}: is not what was written"]


def test_an_edited_record_with_a_forged_ledger_does_not_give_the_numbers(made: Made, tmp_path: Path) -> None:
    write_files(tmp_path, made.run)
    store = Store(tmp_path / "evidence" / "1")
    name = sorted((store.root / "records").iterdir())[-1]
    name.write_text(name.read_text().replace('"value": 0.9', '"value": 0.8'))
    (store.root / ledger.LEDGER_FILE).unlink()
    for record in sorted((store.root / "records").iterdir()):
        store.add_file(record, record.read_bytes())
    found = problems(with_hashes(files_of(tmp_path), json.loads(made.run[MAIN])))
    assert any(line.startswith(f"{MAIN}: ledgers.0.head: ") for line in found)
    assert any(line.startswith(f"{MAIN}: measured.1.utility: 0.9, but from the evidence follows 0.8") for line in found)


def test_documents_of_other_libraries_are_not_made_again_and_that_is_said(made: Made, tmp_path: Path) -> None:
    tree = json.loads(made.small[MAIN])
    tree["written_by"]["libraries"]["jinja2"] = "1.0"
    write_files(tmp_path, with_hashes(made.small, tree))
    found = check(tmp_path)
    assert not found.problems
    assert re.fullmatch(r"the documents were made by jinja2 1\.0 \(here .*\): only their hashes .*", found.notes[0])


def test_no_name_reaches_the_terminal_as_a_command(made: Made) -> None:
    tree = json.loads(made.small[MAIN])
    tree["subjects"][0]["name"] = "\x1b[2Jcleared\nin order"
    tree["written_by"]["libraries"]["jinja2"] = "\x1b[2J"
    tree["data"][0]["notes"] = ["\x1b[2J"]
    with TemporaryDirectory() as folder:
        write_files(Path(folder), with_hashes(made.small, tree))
        done = CliRunner().invoke(app, ["certify", folder, "--check", "--unsigned"])
    assert done.exit_code == 1
    assert "\x1b" not in done.output
    assert "\nin order" not in done.output


def test_the_first_changed_byte_of_a_document_is_named(made: Made) -> None:
    page = made.small["index.html"]
    at = page.index(b"suspicious")
    found = problems(made.small | {"index.html": page[:at] + b"x" + page[at + 1 :]})
    assert f"index.html: does not follow from {MAIN}, from byte {at} on" in found
