"""Looking after a store: check every file against the ledger, remove what nothing needs, join two stores."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness import compact, ledger, records
from harness.ledger import BrokenLedger
from harness.store import KEY, Store

KEPT = ("records", "artefacts", "findings")  # folders whose every file stands in the ledger


@dataclass
class Findings:
    """What `verify` found. problems: one line each; none means that the store is as it was written."""

    files: int = 0
    head: str = ""  # hash of the newest entry
    entries: int = 0
    problems: list[str] = field(default_factory=list)


def verify(store: Store, head: str = "", only: Callable[[str], bool] = bool) -> Findings:
    """Check the chain, every file's hash, and every record's schema. head: a hash that must be in the chain.

    only: says of a path relative to the store whether it is looked at; an archive has no artefacts, for one.
    """
    found = Findings()
    try:
        entries = ledger.read(store.root)
    except BrokenLedger as error:
        found.problems.append(str(error))
        return found
    found.entries, found.head = len(entries), entries[-1].hash if entries else ""
    if not entries:
        found.problems.append(f"{ledger.NAME}: there is none, so nothing can be said of the files")
    if head and not any(entry.hash.startswith(head) for entry in entries):
        found.problems.append(f"--head {head}: not in the ledger, which was made anew or cut short since")
    (store.root / compact.NAME).unlink(missing_ok=True)  # a copy, in no ledger: made anew of the records
    expected, there = ledger.files(entries), set(_files(store.root))
    found.files = len(there)
    for path in sorted(filter(only, there | set(expected))):
        problem = _problem(store, path, expected.get(path, ""), path in there)
        if problem and entries:
            found.problems.append(f"{path}: {problem}")
    return found


def refuse_damaged(store: Store) -> None:
    """Raises BrokenLedger where a store is not as it was written."""
    damage = verify(store).problems
    if damage:
        raise BrokenLedger(f"{store.root}: {damage[0]}" + (f" (and {len(damage) - 1} more)" if damage[1:] else ""))


def _files(root: Path) -> list[str]:
    found = [p for folder in KEPT for p in (root / folder).rglob("*") if p.is_file() and not p.name.endswith(".tmp")]
    return [p.relative_to(root).as_posix() for p in found]


def _problem(store: Store, path: str, expected: str, there: bool) -> str:
    """What is wrong with a file, or nothing."""
    if not inside(path):
        return "the ledger names a file outside the store"
    if not there:
        return "missing: it was removed, or a run was killed while it wrote it; run the grid again"
    if not expected:
        return "not in the ledger: it was put there by something else"
    data = (store.root / path).read_bytes()
    if hashlib.sha256(data).hexdigest() != expected:
        return "is not what was written"
    if path.startswith("records/"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            record = records.load(store.root / path)
        if record is None or record.key != Path(path).name.partition(".")[0]:
            return "is no record of this key"
    return ""


def inside(path: str) -> bool:
    """Does a path of the ledger lie where a store keeps its files?"""
    parts = Path(path).parts
    return bool(parts) and parts[0] in KEPT and ".." not in parts


def unreferenced(store: Store) -> list[Path]:
    """Artefacts behind no record, logs of cells that have not failed, and what killed processes left half-written."""
    found = records.load_all(store)
    needed = {key for record in found.values() for key in record.artefacts}
    failed = {key for key, record in found.items() if record.status not in records.SETTLED}
    artefacts = [p for p in (store.root / "artefacts").rglob("*.safetensors") if p.stem not in needed]
    halves = [p for folder in KEPT for p in (store.root / folder).rglob(".*.tmp")]
    logs = [p for p in (store.root / "logs").glob("*.txt") if p.stem not in failed]
    return sorted(artefacts) + sorted(halves) + sorted(logs)


def collect(store: Store, paths: list[Path]) -> None:
    """Remove these files, and say so in the ledger."""
    for path in paths:
        with ledger.opened(store.root) as book:
            relative = path.relative_to(store.root).as_posix()
            if inside(relative) and not path.name.endswith(".tmp"):
                book.append("removed", path=relative)
            path.unlink(missing_ok=True)


def merge(into: Store, other: Store) -> dict[str, int]:
    """Copy what the other store has and this one lacks; how many files of each folder were copied.

    A record goes over where this store has none of its key, or only one that is not done; it becomes the newest. Raises
    BrokenLedger where the other store is not as it was written.
    """
    refuse_damaged(other)
    theirs = ledger.read(other.root)
    ours = records.load_all(into)
    done = {key for key, record in ours.items() if record.status in records.SETTLED}
    with ledger.opened(into.root) as book:
        book.append("merged", about={"head": theirs[-1].hash, "entries": len(theirs)})
    copied = dict.fromkeys(KEPT, 0)
    for path in sorted(_files(other.root)):
        folder, key = Path(path).parts[0], _key(path)
        if (folder == "artefacts" and not (into.root / path).exists()) or (folder == "findings" and key not in done):
            into.keep(into.root / path, (other.root / path).read_bytes())
            copied[folder] += 1
    for key, record in records.load_all(other).items():
        if key not in done and record != ours.get(key):
            records.save(into, record)
            copied["records"] += 1
    _merge_plans(into, other)
    return copied


def _key(path: str) -> str:
    return next((part for part in Path(path).parts if KEY.fullmatch(part)), "")


def _merge_plans(into: Store, other: Store) -> None:
    try:
        theirs = records.read_plan(other)
    except FileNotFoundError:
        return
    try:
        ours = records.read_plan(into)
    except FileNotFoundError:
        ours = []
    cells = {cell["key"]: cell for cell in (*ours, *theirs)}
    records.write_plan(into, records.planned_grid(into if ours else other), list(cells.values()))
