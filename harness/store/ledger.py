"""The ledger of a store: every run and every file that was written or removed, one JSON line each, chained by hashes.

An entry holds the hash of the entry before it, so no entry can be changed, removed or inserted without breaking the
chain. Somebody who may write the folder can still forge a whole new chain. Against that, note the head that `tinydrop
verify` prints somewhere else, and pass it to a later `verify --head`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import BrokenLedger
from harness.store.plain import as_plain_tree

LEDGER_FILE = "ledger.jsonl"
NO_PREVIOUS = "0" * 64  # the `previous` of the first entry
TAIL = 1 << 16  # bytes read at a time to find the last line


class LedgerEntry(BaseModel):
    """One line of a ledger."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    n: int  # 1, 2, ...
    time: str  # ISO 8601, UTC; for readers alone, because clocks jump
    event: Literal["run", "file", "removed", "merged", "ended"]
    path: str = ""  # of the file, relative to the store
    sha256: str = ""  # of the file
    about: dict[str, Any] = {}  # of a run: who, where, grid, commit; at its end: cells by status, datasets
    previous: str  # hash of entry n - 1
    hash: str = ""  # SHA-256 of the rest, as canonical JSON

    def digest(self) -> str:
        return hashlib.sha256(_canonical(self.model_dump(exclude={"hash"}))).hexdigest()


class Ledger:
    """An open ledger, locked by this process."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.last = _last_entry(file)

    def append(self, event: str, **rest: Any) -> LedgerEntry:
        n, previous = (self.last.n, self.last.hash) if self.last else (0, NO_PREVIOUS)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = LedgerEntry.model_validate(
            {"n": n + 1, "time": now, "event": event, "previous": previous, **as_plain_tree(rest)}
        )
        entry = entry.model_copy(update={"hash": entry.digest()})
        self.file.write(_canonical(entry.model_dump()) + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.last = entry
        return entry


@contextmanager
def open_ledger(root: Path) -> Iterator[Ledger]:
    """The ledger of a store, locked until the block ends or the process does."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / LEDGER_FILE).open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield Ledger(file)


def read_ledger(root: Path) -> list[LedgerEntry]:
    """Every entry, after checking the chain; none without a ledger. Raises BrokenLedger.

    A last line without a newline is the unfinished entry of a killed process, and is left out.
    """
    path = root / LEDGER_FILE
    return parse_ledger(path.read_bytes() if path.is_file() else b"")


def parse_ledger(data: bytes) -> list[LedgerEntry]:
    """The entries in the bytes of a ledger, checked as `read_ledger` does."""
    entries, previous = [], NO_PREVIOUS
    for n, line in enumerate(data.split(b"\n")[:-1], 1):
        entry = _parse_entry(line)
        if entry is None:
            raise BrokenLedger(f"{LEDGER_FILE}: line {n} is no entry")
        if entry.n != n or entry.previous != previous:
            raise BrokenLedger(f"{LEDGER_FILE}: line {n} does not follow line {n - 1}: something was removed or put in")
        if entry.hash != entry.digest():
            raise BrokenLedger(f"{LEDGER_FILE}: line {n} was changed")
        previous = entry.hash
        entries.append(entry)
    return entries


def identity(root: Path) -> str:
    """The hash of the first entry, 64 hex digits. It identifies a store, and stays when the folder is moved.

    Raises FileNotFoundError without a ledger.
    """
    with (root / LEDGER_FILE).open("rb") as file:
        first = _parse_entry(file.readline())
    if first is None:
        raise BrokenLedger(f"{LEDGER_FILE}: line 1 is no entry")
    return first.hash


def expected_files(entries: list[LedgerEntry]) -> dict[str, str]:
    """The files that a store should have by its ledger, relative to the store, and their SHA-256."""
    digests: dict[str, str] = {}
    for entry in entries:
        if entry.event == "file":
            digests[entry.path] = entry.sha256
        elif entry.event == "removed":
            digests.pop(entry.path, None)
    return digests


def _last_entry(file: IO[bytes]) -> LedgerEntry | None:
    """The last entry. A half-written line of a killed process is cut off the file."""
    size = file.seek(0, os.SEEK_END)
    start, tail = size, b""
    while start and tail.count(b"\n") < 2:
        start = max(0, start - TAIL)
        file.seek(start)
        tail = file.read(size - start)
    whole = tail.rfind(b"\n") + 1
    if whole < len(tail):
        file.truncate(start + whole)
    file.seek(0, os.SEEK_END)
    lines = tail[:whole].splitlines()
    if not lines:
        return None
    entry = _parse_entry(lines[-1])
    if entry is None:
        raise BrokenLedger(f"{LEDGER_FILE}: the last line is no entry; `tinydrop verify` says more")
    return entry


def _parse_entry(line: bytes) -> LedgerEntry | None:
    try:
        return LedgerEntry.model_validate_json(line)
    except ValidationError:
        return None


def _canonical(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
