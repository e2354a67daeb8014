"""Maintenance of a store: verify every file against the ledger, remove what nothing needs, merge two stores."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import BrokenLedger
from harness.store import ledger, records
from harness.store.folder import KEY, TRACKED, Store, is_tracked
from harness.store.ledger import LedgerEntry


@dataclass
class Verification:
    """The result of `verify`. No problems means that the store is as it was written."""

    files: int = 0
    heads: list[str] = field(default_factory=list)  # the hash of the newest entry of every ledger
    entries: int = 0
    problems: list[str] = field(default_factory=list)  # one line each
    damaged: list[str] = field(default_factory=list)  # names of the files that have problems


def verify(store: Store, head: str = "", only: Callable[[str], bool] = bool) -> Verification:
    """Check every chain, every file's hash, and every record's schema.

    head: the first digits of a hash that must be in a chain. only: whether to check the file of this name; an archive,
    for example, has no artefacts.
    """
    result = Verification()
    there = set(store.names())  # before reading the ledgers: a run enters a file before it writes it
    chains: list[list[LedgerEntry]] = []
    for name, data in store.ledgers().items():
        try:
            chains.append(ledger.parse_ledger(data))
        except BrokenLedger as error:
            result.problems.append(str(error).replace(ledger.LEDGER_FILE, name, 1))
    if result.problems:
        return result
    entries = [entry for chain in chains for entry in chain]
    result.entries, result.heads = len(entries), [chain[-1].hash for chain in chains if chain]
    if not entries:
        result.problems.append(f"{ledger.LEDGER_FILE}: there is none, so nothing can be said of the files")
    if head and not any(entry.hash.startswith(head) for entry in entries):
        result.problems.append(f"--head {head}: not in the ledger, which was made anew or cut short since")
    there |= set(store.names()) & {entry.path for entry in entries}  # a run has written it since
    expected = _expected_digests(chains, there)
    result.files = len(there)
    for name in sorted(filter(only, there | set(expected))):
        problem = _find_problem(store, name, expected.get(name, set()), name in there)
        if problem and entries:
            result.problems.append(f"{name}: {problem}")
            result.damaged.append(name)
    return result


def repair(store: Store, result: Verification) -> list[str]:
    """Remove the damaged files that `verify` found, so that the next run makes them again; returns their names.

    A cell with a damaged record or finding loses all its records. A missing file is entered as removed in the ledger.
    """
    keys = {_key_of(name) for name in result.damaged if not name.startswith("artefacts/")}
    going = {name for name in store.names() if name.startswith("records/") and _key_of(name) in keys}
    names = sorted(going | set(filter(is_tracked, result.damaged)))
    remove_files(store, names)
    return names


def _expected_digests(chains: list[list[LedgerEntry]], there: set[str]) -> dict[str, set[str]]:
    """The files that should be there, and the SHA-256 that every chain has of them.

    A file that one chain has removed is not missing, though other chains still have it.
    """
    expected: dict[str, set[str]] = {}
    removed: set[str] = set()
    for chain in chains:
        files = ledger.expected_files(chain)
        removed |= {entry.path for entry in chain if entry.event == "removed"} - set(files)
        for name, digest in files.items():
            expected.setdefault(name, set()).add(digest)
    return {name: digests for name, digests in expected.items() if name in there or name not in removed}


def refuse_damaged(store: Store, only: Callable[[str], bool] = bool) -> Verification:
    """Verify a store. Raises BrokenLedger, with the way out, unless it is as it was written."""
    result = verify(store, only=only)
    if damage := result.problems:
        more = f" (and {len(damage) - 1} more)" if damage[1:] else ""
        way = f"`tinydrop verify {shlex.quote(store.address)}` names all, with --repair the next run makes it again"
        raise BrokenLedger(f"{store.address}: {damage[0]}{more}; {way}")
    return result


def _find_problem(store: Store, name: str, expected: set[str], there: bool) -> str:
    """What is wrong with a file; "" if nothing is."""
    if not is_tracked(name):
        return "the ledger names a file outside the store"
    if not there:
        return "missing: it was removed, or a run was killed while it wrote it; run the grid again"
    if not expected:
        return "not in the ledger: it was put there by something else"
    data = store.read(name)
    if hashlib.sha256(data).hexdigest() not in expected:
        return "is not what was written"
    return records.find_fault(name, data) if name.startswith("records/") else ""


def find_unreferenced(store: Store) -> list[str]:
    """Artefacts that no record used, logs of cells that have not failed, and files that killed processes left."""
    newest = records.load_all(store)
    needed = {key for record in newest.values() for key in record.artefacts}
    failed = {key for key, record in newest.items() if record.status not in records.SETTLED}
    artefacts = [n for n in store.names() if n.startswith("artefacts/") and Path(n).stem not in needed]
    logs = [f"logs/{p.name}" for p in (store.root / "logs").glob("*.txt") if p.stem not in failed]
    return sorted(artefacts) + sorted(store.leftovers()) + sorted(logs)


def remove_files(store: Store, names: list[str]) -> None:
    """Remove these files, and enter that in the ledger."""
    for name in names:
        store.remove(name)
    store.push_ledger()


def merge(into: Store, other: Store) -> dict[str, int]:
    """Copy what the other store has and this one lacks; returns how many files of each folder were copied.

    A record is copied where this store has none of its key, or only one that is not settled, and becomes the newest.
    Raises BrokenLedger unless the other store is as it was written.
    """
    theirs = refuse_damaged(other)
    ours = records.load_all(into)
    done = {key for key, record in ours.items() if record.status in records.SETTLED}
    with ledger.open_ledger(into.root) as book:
        book.append("merged", about={"heads": theirs.heads, "entries": theirs.entries})
    copied, here = dict.fromkeys(TRACKED, 0), set(into.names())
    for name in sorted(other.names()):
        folder, key = Path(name).parts[0], _key_of(name)
        if (folder == "artefacts" and name not in here) or (folder == "findings" and key not in done):
            into.add_file(into.root / name, other.read(name))
            copied[folder] += 1
    for key, record in records.load_all(other).items():
        if key not in done and record != ours.get(key):
            records.save(into, record)
            copied["records"] += 1
    _merge_plans(into, other)
    into.push_ledger()
    return copied


def _key_of(name: str) -> str:
    """The key of the cell or artefact that a file belongs to."""
    return next((stem for part in Path(name).parts if KEY.fullmatch(stem := part.partition(".")[0])), "")


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
    records.write_plan(into, records.read_planned_grid(into if ours else other), list(cells.values()))
