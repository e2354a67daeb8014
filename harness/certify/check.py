"""Checks a certificate: its files, their hashes, the signature, the schema, and that all follows from the records."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from harness.certify import sign
from harness.certify.collect import collect
from harness.certify.documents import make_documents, maker_versions
from harness.certify.evidence import COPIED, Evidence, belongs
from harness.certify.findings import first_problem, parse_json
from harness.certify.schema import SCHEMA, Certificate
from harness.certify.sign import SIGNATURE
from harness.certify.write import CERTIFICATE, write_files
from harness.console import one_line, quote
from harness.errors import BadEvidence, NewerSchema, Refused

DOCUMENT = r"index\.html|model_card\.md|bom\.json|croissant-[1-9][0-9]*\.json"
KNOWN = re.compile(rf"{DOCUMENT}|(?P<of>evidence/[1-9][0-9]?)/(?P<file>{COPIED.pattern})")
CLOSE = 1e-5  # relative: another machine may compute another last digit of six
LARGEST = 1 << 30  # bytes of all files
DEEPEST = 4  # folders


@dataclass
class Checked:
    """problems: one line each, none for a certificate that holds. notes: what could not be checked."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    certificate: Certificate | None = None


def check(
    folder: Path, verifier: Any = None, largest: int = LARGEST, code: Mapping[str, Any] | None = None
) -> Checked:  # fmt: skip
    """Check a certificate. verifier: of `sign.read_public`; None leaves the signature unchecked.

    code: version and commit of this tinydrop, to say where a certificate was written by another, which may count
    otherwise.

    Every file is read once, without following links; all checks are of these bytes. Nothing is unpickled or run.
    Raises BadEvidence where there is no certificate, and NewerSchema for one of a newer version.
    """
    if not folder.is_dir():
        raise BadEvidence(f"FOLDER {quote(str(folder))}: no such folder")
    if not os.path.lexists(folder / CERTIFICATE):
        raise BadEvidence(f"FOLDER {quote(str(folder))}: holds no {CERTIFICATE}; `tinydrop certify RUN` writes one")
    found = Checked()
    files = _read_files(folder, found, largest)
    if found.problems:  # a link or another file: nothing of it is looked into
        return found
    with TemporaryDirectory(prefix="tinydrop-") as temporary:
        root = Path(temporary) / "certificate"
        write_files(root, files)
        if verifier is not None:
            found.problems += _check_signature(root, files, verifier)
        found.certificate = _parse(files[CERTIFICATE], found)
        if found.certificate is not None:
            found.problems += _check_hashes(found.certificate, files)
            found.problems += _check_follows(found.certificate, files, root, found.notes)
    if found.problems and found.certificate and code:
        writer = found.certificate.written_by
        if (writer.tinydrop, writer.commit) != (code["tinydrop"], code["commit"]):
            by = f"tinydrop {writer.tinydrop}{f', commit {writer.commit[:12]}' if writer.commit else ''}"
            found.notes.append(f"written by {by}, which may count otherwise: check it with that code before you judge")
    found.problems, found.notes = (
        [one_line(text, None) for text in dict.fromkeys(texts)] for texts in (found.problems, found.notes)
    )  # names in it can hold what a terminal would obey
    return found


def _read_files(folder: Path, found: Checked, largest: int) -> dict[str, bytes]:
    """Every file below a folder, by its name relative to it."""
    files: dict[str, bytes] = {}
    names = list(_walk(folder, ""))
    size = 0
    for name in sorted(names):
        shown = one_line(quote(name), 200)
        try:
            handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            found.problems.append(f"{shown}: is a link, or cannot be read ({error.strerror})")
            continue
        with open(handle, "rb") as file:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                found.problems.append(f"{shown}: is no file")
                continue
            if name not in (CERTIFICATE, SIGNATURE) and not KNOWN.fullmatch(name):
                found.problems.append(f"{shown}: is no file of a certificate")
                continue
            size += about.st_size
            if size > largest:
                found.problems.append(f"{shown}: with it the files have more than {largest / 1e6:,.0f} MB")
                return files
            files[name] = file.read(largest + 1)
    return files


def _walk(folder: Path, prefix: str, depth: int = 0) -> Iterator[str]:
    """Names of everything that is no folder. Links are names, whatever they lead to."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False) and depth < DEEPEST:
                yield from _walk(Path(entry.path), f"{name}/", depth + 1)
            else:
                yield name


def _check_signature(root: Path, files: dict[str, bytes], verifier: Any) -> Iterator[str]:
    if SIGNATURE not in files:
        yield f"{SIGNATURE}: is missing: nobody has signed this, or the signature was taken away"
        return
    problem = sign.find_signature_problem(verifier, root)
    if not problem:
        return
    signed = sign.signed_files(files[SIGNATURE]) if problem.startswith("Signature mismatch") else {}
    here = {name: sha256(data).hexdigest() for name, data in files.items() if name != SIGNATURE}
    for name in sorted(signed.keys() | here.keys()) if signed else ():
        if signed.get(name) != here.get(name):
            there = "is missing" if name not in here else "is not what was signed"
            yield f"{one_line(quote(name), 200)}: {there if name in signed else 'was not signed'}"
    if not signed:
        yield f"{SIGNATURE}: {problem}"


def _parse(data: bytes, found: Checked) -> Certificate | None:
    """The certificate, or None with a problem."""
    try:
        tree = parse_json(data)
        newer = tree.get("schema") if isinstance(tree, dict) else None
        certificate = Certificate.model_validate_json(data)
    except ValidationError as error:
        if isinstance(newer, int) and newer > SCHEMA:
            why = f"{CERTIFICATE}: schema {newer}, this tinydrop reads up to {SCHEMA}; upgrade it"
            raise NewerSchema(why) from None
        found.problems.append(f"{CERTIFICATE}: {first_problem(error)}")
    except (ValueError, RecursionError) as error:
        found.problems.append(f"{CERTIFICATE}: is no JSON ({one_line(error, 100)})")
    else:
        if at := _first_difference(data, certificate.as_json()):
            found.problems.append(f"{CERTIFICATE}: is not as it was written, from byte {at - 1} on")
        return certificate
    return None


def _check_hashes(certificate: Certificate, files: dict[str, bytes]) -> Iterator[str]:
    """Every file but the certificate and its signature is listed, and has the hash that is listed."""
    listed = certificate.files
    here = {name: data for name, data in files.items() if name not in (CERTIFICATE, SIGNATURE)}
    for name in sorted(listed.keys() | here.keys()):
        shown = one_line(quote(name), 200)
        if not KNOWN.fullmatch(name):
            yield f"{CERTIFICATE}: files: {shown} is no file of a certificate"
        elif name not in here:
            yield f"{shown}: is missing"
        elif name not in listed:
            yield f"{shown}: is not listed in {CERTIFICATE}"
        elif sha256(here[name]).hexdigest() != listed[name]:
            yield f"{shown}: does not have the hash that {CERTIFICATE} lists"


def _check_follows(
    certificate: Certificate, files: dict[str, bytes], root: Path, notes: list[str]
) -> Iterator[str]:  # fmt: skip
    """The fields, made again from the evidence; and the documents, made again from the fields."""
    kinds = {subject.folder: subject.kind for subject in certificate.subjects}
    if list(kinds) != [f"evidence/{i}" for i in range(1, len(certificate.subjects) + 1)]:
        yield f"{CERTIFICATE}: subjects: their folders are not evidence/1, evidence/2, ..."
        return
    for name in files:
        if (part := KNOWN.fullmatch(name)) and part["of"] and not belongs(part["file"], kinds.get(part["of"])):
            yield f"{name}: is evidence of nothing that {CERTIFICATE} lists"
    try:
        evidence = [Evidence(root, subject) for subject in certificate.subjects]
        again = collect(evidence, certificate.date, certificate.written_by, certificate.suite, certificate.subjects)
    except (Refused, OSError) as error:
        yield one_line(str(error).replace(f"{root}/", ""), 300)
        return
    except Exception as error:  # forged records can be anything
        yield f"evidence: nothing can be made of it ({type(error).__name__}: {one_line(error, 200)})"
        return
    here, there = (one.model_dump(mode="json", by_alias=True, exclude={"files"}) for one in (certificate, again))
    apart = list(_differences(here, there))
    for where, said, follows in apart:
        yield f"{CERTIFICATE}: {where}: {quote(said)}, but from the evidence follows {quote(follows)}"
    if not apart:
        yield from _check_documents(certificate, files, notes)


def _check_documents(certificate: Certificate, files: dict[str, bytes], notes: list[str]) -> Iterator[str]:
    mine, theirs = maker_versions(), certificate.written_by.libraries
    others = [f"{name} {theirs.get(name, '-')} (here {mine[name]})" for name in mine if theirs.get(name) != mine[name]]
    if others:
        notes.append(f"the documents were made by {', '.join(others)}: only their hashes were checked")
        return
    made = make_documents(certificate)
    there = {name for name in files if "/" not in name} - {CERTIFICATE, SIGNATURE}
    for name in sorted(made.keys() | there):
        if name in made and name in there:
            if at := _first_difference(files[name], made[name]):
                yield f"{name}: does not follow from {CERTIFICATE}, from byte {at - 1} on"
        else:
            yield f"{name}: is {'missing' if name in made else f'no document of this {CERTIFICATE}'}"


def _first_difference(a: bytes, b: bytes) -> int:
    """The number, from 1, of the first byte in which two files differ; 0 where they are equal."""
    if a == b:
        return 0
    return 1 + next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def _differences(said: Any, follows: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every field in which two trees differ: its path, and both values."""
    if isinstance(said, dict) and isinstance(follows, dict):
        for name in dict.fromkeys((*said, *follows)):
            yield from _differences(said.get(name), follows.get(name), f"{where}.{name}".lstrip("."))
    elif isinstance(said, list) and isinstance(follows, list) and len(said) == len(follows):
        for i, (a, b) in enumerate(zip(said, follows)):
            yield from _differences(a, b, f"{where}.{i}")
    elif isinstance(said, float) and isinstance(follows, float):
        if not math.isclose(said, follows, rel_tol=CLOSE, abs_tol=1e-12):
            yield where, said, follows
    elif said != follows or isinstance(said, bool) != isinstance(follows, bool):
        yield where, said, follows
