"""What a certificate rests on: the records of a run, an audit or a vetting; copied into it, and read from there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.certify.findings import AuditFile, VetFile, read_audit, read_vet
from harness.certify.schema import Kind, Subject
from harness.console import quote
from harness.errors import BadEvidence, BrokenLedger
from harness.store import ledger, maintenance, records
from harness.store.folder import ORIGIN, PLAN, Store
from harness.store.ledger import LedgerEntry
from harness.store.records import PlannedCell, Record

AUDIT, VET = "audit.json", "vet.json"
COPIED = re.compile(r"ledger\.jsonl|plan\.json|records/[0-9a-f]{32}(\.[1-9][0-9]*)?\.json|audit\.json|vet\.json")
MOST = 99  # runs, audits and vettings of one certificate


@dataclass(frozen=True)
class Found:
    """A run, audit or vetting where it was made, and the files of it that a certificate takes, by name."""

    kind: Kind
    name: str
    files: dict[str, bytes]


def find(place: Path) -> list[Found]:
    """What a folder holds, or the audit.json or vet.json that is named.

    Raises BadEvidence where it holds nothing of the kind, and BrokenLedger for a run that is not as it was written.
    """
    where = f"INPUT {quote(str(place))}"
    if place.is_file() and place.name in (AUDIT, VET):
        place = place.parent
    name = place.resolve().name or "run"
    kinds: tuple[tuple[Kind, str], ...] = (("audit", AUDIT), ("vet", VET))
    found = [Found(k, name, {file: (place / file).read_bytes()}) for k, file in kinds if (place / file).is_file()]
    if (place / PLAN).is_file():
        found.append(Found("run", name, _read_run(place, where)))
    if not found:
        way = "; `tinydrop vet` writes it now: run it again" if (place / "quarantine.csv").is_file() else ""
        raise BadEvidence(f"{where}: holds no run (plan.json), no audit.json and no vet.json{way}")
    return found


def _read_run(place: Path, where: str) -> dict[str, bytes]:
    if (place / ORIGIN).is_file():
        raise BadEvidence(f"{where}: is a copy of a URL, with a ledger for every machine; `tinydrop merge` it first")
    store = Store(place)
    maintenance.refuse_damaged(store)
    names = [name for name in (*store.names(), ledger.LEDGER_FILE, PLAN) if COPIED.fullmatch(name)]
    files = {name: (place / name).read_bytes() for name in sorted(names)}
    if not any(name.startswith("records/") for name in files):
        raise BadEvidence(f"{where}: has no record yet; `tinydrop status` says what is pending")
    return files


@dataclass(frozen=True)
class Evidence:
    """One folder below evidence/ of a certificate at `root`. Its properties raise BadEvidence or BrokenLedger."""

    root: Path
    subject: Subject

    @property
    def folder(self) -> str:
        return self.subject.folder

    @property
    def kind(self) -> Kind:
        return self.subject.kind

    @property
    def name(self) -> str:
        return self.subject.name

    @cached_property
    def audit(self) -> AuditFile | None:
        return read_audit(f"{self.folder}/{AUDIT}", self._read(AUDIT)) if self.kind == "audit" else None

    @cached_property
    def vet(self) -> VetFile | None:
        return read_vet(f"{self.folder}/{VET}", self._read(VET)) if self.kind == "vet" else None

    @cached_property
    def entries(self) -> list[LedgerEntry]:
        """The ledger of a run, whose chain holds and which lists these very records; else none."""
        if self.kind != "run":
            return []
        found = maintenance.verify(self._store, only=lambda name: name.startswith("records/"))
        if found.problems:
            raise BrokenLedger(f"{self.folder}/{found.problems[0]}")
        return ledger.read_ledger(self._store.root)

    @cached_property
    def plan(self) -> list[PlannedCell]:
        return records.read_plan(self._store) if self.kind == "run" else []

    @cached_property
    def records(self) -> list[Record]:
        """The newest record of every planned cell, in the order of the plan."""
        newest = records.load_all(self._store) if self.entries else {}
        return [newest[cell["key"]] for cell in self.plan if cell["key"] in newest]

    @cached_property
    def artefacts(self) -> dict[str, str]:
        """Names of trained models in the ledger, by the SHA-256 of their files."""
        files = ledger.expected_files(self.entries)
        return {digest: name for name, digest in files.items() if name.startswith("artefacts/")}

    @property
    def _store(self) -> Store:
        return Store(self.root / self.folder)

    def _read(self, name: str) -> bytes:
        try:
            return (self.root / self.folder / name).read_bytes()
        except FileNotFoundError:
            raise BadEvidence(f"{self.folder}/{name}: is missing") from None


def belongs(name: str, kind: Kind | None) -> bool:
    """Whether the evidence of this kind has a file of this name."""
    return name == {"audit": AUDIT, "vet": VET}.get(str(kind)) or (kind == "run" and name not in (AUDIT, VET))


def number(found: list[Found]) -> Iterator[tuple[Subject, Found]]:
    """Every finding with the folder that it gets. Raises BadEvidence for more than MOST."""
    if len(found) > MOST:
        raise BadEvidence(f"INPUT: {len(found)} runs, audits and vettings; a certificate is of {MOST} at most")
    for i, one in enumerate(found, 1):
        yield Subject(folder=f"evidence/{i}", kind=one.kind, name=one.name), one
