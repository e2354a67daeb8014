"""A store at a URL that fsspec knows, shared by any number of machines.

    URL/records, artefacts, findings    as in a folder, of all machines together
    URL/ledgers/<machine>.jsonl         the chain of every machine, pushed when it ends a victim's cells
    URL/leases/<key>.<n>                which cell or artefact a machine is working on; see harness.store.leases
    URL/plan.json

Every machine works in a folder of its own, the working copy, which is a run like any other. What it adds goes to the
URL at once. What others have added is pulled before a cell is run and at the end.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from harness.errors import BrokenLedger, Unreachable
from harness.store import leases, ledger, records
from harness.store.folder import ORIGIN, PLAN, TRACKED, Store, is_tracked, write_atomically
from harness.store.leases import Leases, lease_seconds
from harness.store.storage import Storage

CACHE = "TINYDROP_CACHE"  # environment variable: where working copies lie; ~/.cache/tinydrop without it
BATCH = 500  # files fetched at a time
LEDGERS = "ledgers"
SAFE_NAME = re.compile(r"[\w.-]+(/[\w.-]+)*")  # of a file that is copied from the URL


def open_url(url: str) -> RemoteStore:
    """The store at a URL, with this machine's working copy of it. Raises Unreachable for a URL without a path."""
    protocol, _, path = url.partition("://")
    url = f"{protocol}://{path.rstrip('/')}"
    if not path.rstrip("/"):
        raise Unreachable(f"URL: {url!r}: names no place; write a bucket or folder behind it, e.g. {url}bucket/mine")
    name = re.sub(r"\W+", "-", url)[-60:].strip("-") + "-" + hashlib.sha256(url.encode()).hexdigest()[:8]
    root = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "tinydrop") / name
    lease_seconds()  # a wrong setting is refused now, not when a lease is waited for
    with ledger.open_ledger(root):  # so that one of several processes names the machine
        if not (root / ORIGIN).is_file():
            write_atomically(root / ORIGIN, f"{url}\n{uuid4().hex}\n")
    return open_working_copy(root)


def open_working_copy(root: Path) -> RemoteStore:
    """The store that the working copy in this folder belongs to."""
    return RemoteStore(root, *(root / ORIGIN).read_text().splitlines())


@dataclass(frozen=True)
class RemoteStore(Store):
    """A working copy and the URL that it belongs to. Every method that asks the URL may raise Unreachable."""

    url: str
    machine: str  # names the working copy, in leases and ledgers

    @property
    def address(self) -> str:
        return self.url

    @property
    def storage(self) -> Storage:
        return Storage(self.url)

    @property
    def leases(self) -> Leases:
        return Leases(self.storage, self.machine)

    # The working copy and the URL brought together

    def pull(self) -> None:
        here = set(super().names())
        new = [name for name in self.names() if name not in here and not name.startswith("artefacts/")]
        for start in range(0, len(new), BATCH):
            self._fetch(new[start : start + BATCH])
        with suppress(FileNotFoundError):
            write_atomically(self.root / PLAN, self.storage.get(PLAN))

    def push(self) -> None:
        chain, there, here = super().ledgers().get(ledger.LEDGER_FILE, b""), self._sizes(), super().names()
        with suppress(FileNotFoundError):
            if chain and not chain.startswith(self.storage.get(self._chain)):
                raise BrokenLedger(f"{self.url}/{self._chain}: says more than {self.root}, which is an older copy")
        missing = [n for n in here if n not in there or (there[n] != self.size(n) and self._is_cut_short(n))]
        damaged = self._find_damaged(missing)
        for name in missing:
            if name not in damaged:
                self.storage.put(name, super().read(name))
        self.push_ledger()

    def push_ledger(self) -> None:
        chain = super().ledgers().get(ledger.LEDGER_FILE)
        if chain:
            self.storage.put(self._chain, chain)
        if (self.root / PLAN).is_file():
            self.storage.put(PLAN, super().read(PLAN))

    def restore_damaged(self) -> None:
        for name in self._find_damaged(super().names()):
            (self.root / name).unlink()
        self.pull()

    @property
    def _chain(self) -> str:
        """The name of this machine's ledger at the URL."""
        return f"{LEDGERS}/{self.machine}.jsonl"

    def _find_damaged(self, names: list[str]) -> set[str]:
        """Those of these files of the working copy whose content is not what this machine's ledger says."""
        expected = ledger.expected_files(ledger.read_ledger(self.root)) if names else {}
        known = (name for name in names if name in expected)
        return {n for n in known if hashlib.sha256((self.root / n).read_bytes()).hexdigest() != expected[n]}

    def _is_cut_short(self, name: str) -> bool:
        """Whether the URL's file may be replaced, since a kill can have cut it short; a sound record may not."""
        return not name.startswith("records/") or not records.is_sound(name, self.storage.get(name))

    def _fetch(self, names: list[str]) -> None:
        """Copy these files from the URL and enter them in this machine's ledger. A damaged record is not copied."""
        for name, data in self.storage.get_many(names).items():
            if name.startswith("records/") and not records.is_sound(name, data):
                continue  # cut short, or not complete yet: it counts as missing
            super()._add_file(partial(self.root.joinpath, name), (self.root / name).parent, data)

    # The files at the URL

    def names(self) -> list[str]:
        return sorted(self._sizes())

    def read(self, name: str) -> bytes:
        return self.storage.get(name)

    def size(self, name: str) -> int:
        return super().size(name) if (self.root / name).is_file() else self.storage.size(name)

    def ledgers(self) -> dict[str, bytes]:
        names = [name for name in self.storage.sizes(LEDGERS) if name.endswith(".jsonl")]
        return {name: self.storage.get(name) for name in names}

    def leftovers(self) -> list[str]:
        return super().leftovers() + sorted(self.storage.sizes(leases.FOLDER))

    def remove(self, name: str) -> None:
        super().remove(name)
        with suppress(FileNotFoundError):
            self.storage.remove(name)

    def _sizes(self) -> dict[str, int]:
        sizes = {name: size for folder in TRACKED for name, size in self.storage.sizes(folder).items()}
        return {name: size for name, size in sizes.items() if is_tracked(name) and SAFE_NAME.fullmatch(name)}

    # What a run adds and asks for

    def _add_file(self, path: Callable[[], Path], folder: Path, data: bytes) -> str:
        name = super()._add_file(path, folder, data)
        if name.startswith("records/"):
            with suppress(FileExistsError):  # another machine took this one for dead: the first record stays
                self.storage.create(name, data)
        else:
            self.storage.put(name, data)
        return name

    def load_tensors(self, key: str) -> dict[str, Any] | None:
        tensors = super().load_tensors(key)
        if tensors is None:
            self._fetch([self._name(self.artefact_path(key))])
            tensors = super().load_tensors(key)
        return tensors

    @contextmanager
    def claim(self, key: str, wait: bool = True) -> Iterator[bool]:
        with super().claim(key, wait) as mine:  # among the processes of this machine
            n = self.leases.take(key, wait) if mine else 0
            if not n:
                yield False
                return
            with self.leases.hold(key, n):
                self._fetch_records(key)
                yield True

    def _fetch_records(self, key: str) -> None:
        before = -1
        while before < (before := self.count_attempts(key)):
            self._fetch([self._name(self.record_path(key, before + 1))])

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()
