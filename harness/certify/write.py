"""Writes a certificate: a folder that comes into being whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from harness.certify import sign
from harness.certify.collect import collect, describe_suite
from harness.certify.documents import make_documents, maker_versions
from harness.certify.evidence import Evidence, find, number
from harness.certify.schema import Certificate, Writer
from harness.console import quote
from harness.errors import NotASite
from harness.store.folder import write_atomically

CERTIFICATE = "certificate.json"


def certify(
    inputs: Sequence[Path], to: Path, code: Mapping[str, Any], date: str = "", signer: Any = None
) -> Certificate:
    """Certify runs, audits and vettings in the folder `to`, in place of an older certificate there.

    code: version, commit and state of this tinydrop (`harness.run.provenance.code_version`). Raises NotASite where `to`
    holds something else, and what `evidence.find` and `collect` raise.
    """
    to = Path(os.path.abspath(to))
    refuse_other(to)
    numbered = list(number([one for place in inputs for one in find(place)]))
    subjects = [subject for subject, _ in numbered]
    writer = Writer(**{name: code[name] for name in ("tinydrop", "commit", "dirty")}, libraries=maker_versions())
    with TemporaryDirectory(prefix="tinydrop-") as temporary:
        root = Path(temporary) / "certificate"  # the name that the signature gives to what it signs
        files = {f"{subject.folder}/{name}": data for subject, one in numbered for name, data in one.files.items()}
        write_files(root, files)
        evidence = [Evidence(root, subject) for subject in subjects]
        certificate = collect(evidence, date, writer, describe_suite(evidence), subjects)
        files |= make_documents(certificate)
        certificate = certificate.model_copy(update={"files": hashes(files)})
        files[CERTIFICATE] = certificate.as_json()
        write_files(root, files)
        if signer is not None:
            sign.sign(signer, root)
        _put_in_place(root, to)
    return certificate


def hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 by name, in the order of the names."""
    return {name: sha256(files[name]).hexdigest() for name in sorted(files)}


def write_files(root: Path, files: Mapping[str, bytes]) -> None:
    """Write files that are not there yet."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(data)


def refuse_other(to: Path) -> None:
    """Raises NotASite for a file, a link, and a folder that holds something and no certificate."""
    if to.is_symlink() or (to.exists() and not to.is_dir()):
        raise NotASite(f"--out {quote(str(to))}: is no folder")
    if to.is_dir() and any(to.iterdir()) and not (to / CERTIFICATE).is_file():
        raise NotASite(f"--out {quote(str(to))}: holds something else than a certificate; name another folder")


def _put_in_place(made: Path, to: Path) -> None:
    """Copy beside `to`, then rename: nobody ever sees half of a certificate."""
    to.parent.mkdir(parents=True, exist_ok=True)
    new, old = (to.parent / f".{to.name}.{uuid4().hex}.{kind}" for kind in ("new", "old"))
    try:
        for path in sorted(path for path in made.rglob("*") if path.is_file()):
            write_atomically(new / path.relative_to(made), path.read_bytes())
        if to.exists():
            os.replace(to, old)
        os.replace(new, to)
    finally:
        if not to.exists() and old.exists():
            os.replace(old, to)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
