"""Looking after a store: check every file against the ledger, remove what nothing needs, join two stores."""

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
    """What `verify` found. problems: one line each; none means that the store is as it was written."""

    files: int = 0
    heads: list[str] = field(default_factory=list)  # hash of the newest entry, of every ledger
    entries: int = 0
    problems: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # names of the files that they are about


def verify(store: Store, head: str = "", only: Callable[[str], bool] = bool) -> Verification:
    """Check every chain, every file's hash, and every record's schema. head: a hash that must be in a chain.

    only: says of a name in the store whether it is looked at; an archive has no artefacts, for one.
    """
    found = Verification()
    there = set(store.names())  # before the ledgers: a run of this folder enters what it is about to write
    chains: list[list[LedgerEntry]] = []
    for name, data in store.ledgers().items():
        try:
            chains.append(ledger.parse_ledger(data))
        except BrokenLedger as error:
            found.problems.append(str(error).replace(ledger.LEDGER_FILE, name, 1))
    if found.problems:
        return found
    entries = [entry for chain in chains for entry in chain]
    found.entries, found.heads = len(entries), [chain[-1].hash for chain in chains if chain]
    if not entries:
        found.problems.append(f"{ledger.LEDGER_FILE}: there is none, so nothing can be said of the files")
    if head and not any(entry.hash.startswith(head) for entry in entries):
        found.problems.append(f"--head {head}: not in the ledger, which was made anew or cut short since")
    there |= set(store.names()) & {entry.path for entry in entries}  # and has written it since
    expected = _expected_digests(chains, there)
    found.files = len(there)
    for name in sorted(filter(only, there | set(expected))):
        problem = _find_problem(store, name, expected.get(name, set()), name in there)
        if problem and entries:
            found.problems.append(f"{name}: {problem}")
            found.damaged.append(name)
    return found


def repair(store: Store, found: Verification) -> list[str]:
    """Remove what `verify` found damaged, so that the next run makes it again; the names that went.

    Of a cell with a damaged record or finding every record goes. What is missing is entered in the ledger as removed.
    """
    keys = {_key(name) for name in found.damaged if not name.startswith("artefacts/")}
    going = {name for name in store.names() if name.startswith("records/") and _key(name) in keys}
    names = sorted(going | set(filter(is_tracked, found.damaged)))
    remove_files(store, names)
    return names


def _expected_digests(chains: list[list[LedgerEntry]], there: set[str]) -> dict[str, set[str]]:
    """The files that should be there, and the SHA-256 that every chain has of them.

    What the owner of one chain has removed is missed by no other.
    """
    found: dict[str, set[str]] = {}
    removed: set[str] = set()
    for chain in chains:
        files = ledger.expected_files(chain)
        removed |= {entry.path for entry in chain if entry.event == "removed"} - set(files)
        for name, digest in files.items():
            found.setdefault(name, set()).add(digest)
    return {name: digests for name, digests in found.items() if name in there or name not in removed}


def refuse_damaged(store: Store, only: Callable[[str], bool] = bool) -> Verification:
    """What `verify` found. Raises BrokenLedger, with the way out, where a store is not as it was written."""
    found = verify(store, only=only)
    if damage := found.problems:
        more = f" (and {len(damage) - 1} more)" if damage[1:] else ""
        way = f"`tinydrop verify {shlex.quote(store.address)}` names all, with --repair the next run makes it again"
        raise BrokenLedger(f"{store.address}: {damage[0]}{more}; {way}")
    return found


def _find_problem(store: Store, name: str, expected: set[str], there: bool) -> str:
    """What is wrong with a file, or nothing."""
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
    """Artefacts behind no record, logs of cells that have not failed, and what killed processes left behind."""
    found = records.load_all(store)
    needed = {key for record in found.values() for key in record.artefacts}
    failed = {key for key, record in found.items() if record.status not in records.SETTLED}
    artefacts = [n for n in store.names() if n.startswith("artefacts/") and Path(n).stem not in needed]
    logs = [f"logs/{p.name}" for p in (store.root / "logs").glob("*.txt") if p.stem not in failed]
    return sorted(artefacts) + sorted(store.leftovers()) + sorted(logs)


def remove_files(store: Store, names: list[str]) -> None:
    """Remove these files, and say so in the ledger."""
    for name in names:
        store.remove(name)
    store.push_ledger()


def merge(into: Store, other: Store) -> dict[str, int]:
    """Copy what the other store has and this one lacks; how many files of each folder were copied.

    A record goes over where this store has none of its key, or only one that is not done; it becomes the newest. Raises
    BrokenLedger where the other store is not as it was written.
    """
    theirs = refuse_damaged(other)
    ours = records.load_all(into)
    done = {key for key, record in ours.items() if record.status in records.SETTLED}
    with ledger.open_ledger(into.root) as book:
        book.append("merged", about={"heads": theirs.heads, "entries": theirs.entries})
    copied, here = dict.fromkeys(TRACKED, 0), set(into.names())
    for name in sorted(other.names()):
        folder, key = Path(name).parts[0], _key(name)
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


def _key(name: str) -> str:
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
