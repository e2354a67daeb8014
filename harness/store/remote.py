"""A run on storage that is no folder: any URL that fsspec knows, shared by any number of machines.

    URL/records, artefacts, findings    as in a folder, of all machines together
    URL/ledgers/<machine>.jsonl         the chain of every machine, handed over when it ends a victim's cells
    URL/leases/<key>.<n>                which cell or artefact a machine has at hand
    URL/plan.json

Every machine works in a folder of its own, the working copy, which is a run like any other. What it keeps goes to the
URL at once; what others have done comes before a cell is run and at the end. A lease is renewed while it is held. One
that does not change for 90 seconds (TINYDROP_LEASE), by the clock of whoever waits, is that of a machine that is gone.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import fsspec

from harness.console import one_line
from harness.errors import BrokenLedger, Unreachable
from harness.store import ledger, records
from harness.store.folder import KEPT, ORIGIN, PLAN, Store, inside, write_atomically

CACHE = "TINYDROP_CACHE"  # environment variable: where working copies lie; ~/.cache/tinydrop without it
LEASE = "TINYDROP_LEASE"  # seconds without a renewal after which a lease's machine counts as gone; 90 without it
BEATS = 6  # renewals in that time
LOOKS = 45  # looks at somebody else's lease in that time
TOGETHER = 500  # files fetched at a time
LEDGERS, LEASES = "ledgers", "leases"
NAME = re.compile(r"[\w.-]+(/[\w.-]+)*")  # of a file that is taken over

T = TypeVar("T")


def working_copy(url: str) -> RemoteStore:
    """The store at a URL, in this machine's folder for it. Raises Unreachable for a URL without a path."""
    protocol, _, path = url.partition("://")
    url = f"{protocol}://{path.rstrip('/')}"
    if not path.rstrip("/"):
        raise Unreachable(f"URL: {url!r}: names no place; write a bucket or folder behind it, e.g. {url}bucket/mine")
    name = re.sub(r"\W+", "-", url)[-60:].strip("-") + "-" + hashlib.sha256(url.encode()).hexdigest()[:8]
    root = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "tinydrop") / name
    patience()  # said now rather than when a lease is waited for
    with ledger.opened(root):  # of two processes one
        if not (root / ORIGIN).is_file():
            write_atomically(root / ORIGIN, f"{url}\n{uuid4().hex}\n")
    return of_folder(root)


def patience() -> float:
    """Seconds after which a lease that is not renewed is another's."""
    said = os.environ.get(LEASE, "90")
    if not re.fullmatch(r"\d+(\.\d+)?", said) or not float(said):
        raise Unreachable(f"{LEASE}={said!r}: seconds without a sign of life after which a machine is gone, e.g. 90")
    return float(said)


def of_folder(root: Path) -> RemoteStore:
    """The store that a working copy belongs to."""
    return RemoteStore(root, *(root / ORIGIN).read_text().splitlines())


@dataclass(frozen=True)
class RemoteStore(Store):
    """A working copy and the URL that it belongs to. Everything that talks to the URL may raise Unreachable."""

    url: str
    machine: str  # names the working copy, in leases and ledgers

    @property
    def address(self) -> str:
        return self.url

    # What others did, what is ours

    def pull(self) -> None:
        there = self.names()
        here = set(super().names())
        new = sorted(n for n in there if n not in here and not n.startswith("artefacts/"))
        for start in range(0, len(new), TOGETHER):
            self._take(new[start : start + TOGETHER])
        with suppress(FileNotFoundError):
            write_atomically(self.root / PLAN, self._get(PLAN))

    def push(self) -> None:
        chain, there, here = super().ledgers().get(ledger.NAME, b""), self._sizes(), super().names()
        with suppress(FileNotFoundError):
            if chain and not chain.startswith(self._get(self._chain)):
                raise BrokenLedger(f"{self.url}/{self._chain}: says more than {self.root}, which is an older copy")
        missing = [n for n in here if n not in there or (there[n] != self.size(n) and self._half(n))]
        damaged = self._damaged(missing)
        for name in missing:
            if name not in damaged:
                self._put(name, super().read(name))
        self.hand_over()

    def heal(self) -> None:
        for name in self._damaged(super().names()):
            (self.root / name).unlink()
        self.pull()

    def _damaged(self, names: list[str]) -> set[str]:
        """Those of these files of the working copy that are not what this machine's ledger says."""
        expected = ledger.files(ledger.read(self.root)) if names else {}
        known = (name for name in names if name in expected)
        return {n for n in known if hashlib.sha256((self.root / n).read_bytes()).hexdigest() != expected[n]}

    def hand_over(self) -> None:
        chain = super().ledgers().get(ledger.NAME)
        if chain:
            self._put(self._chain, chain)
        if (self.root / PLAN).is_file():
            self._put(PLAN, super().read(PLAN))

    @property
    def _chain(self) -> str:
        return f"{LEDGERS}/{self.machine}.jsonl"

    def _half(self, name: str) -> bool:
        """Was a file cut short by a kill? Not every storage writes all of it or none; a sound record stays as it is."""
        return not name.startswith("records/") or not records.sound(name, self._get(name))

    def _take(self, names: list[str]) -> None:
        """Copies of these, entered in this machine's ledger as it found them; a damaged record stays there."""
        top = self._top

        def fetch(files: Any) -> dict[str, bytes]:
            found = files.cat([f"{top}/{name}" for name in names], on_error="return")
            for got in found.values():
                if isinstance(got, Exception) and not isinstance(got, FileNotFoundError):
                    raise got
            return {_below(top, path): got for path, got in found.items() if isinstance(got, bytes)}

        for name, data in self._asked(fetch).items():
            if name.startswith("records/") and not records.sound(name, data):
                continue  # cut short, or not yet whole: it counts as missing
            super()._keep(partial(self.root.joinpath, name), (self.root / name).parent, data)

    # The files at the URL, as a store shows them

    def names(self) -> list[str]:
        return sorted(self._sizes())

    def read(self, name: str) -> bytes:
        return self._get(name)

    def size(self, name: str) -> int:
        if (self.root / name).is_file():
            return super().size(name)
        return int(self._asked(lambda files: files.size(f"{self._top}/{name}")) or 0)

    def ledgers(self) -> dict[str, bytes]:
        names = [name for name in self._listed(LEDGERS) if name.endswith(".jsonl")]
        return {name: self._get(name) for name in names}

    def halves(self) -> list[str]:
        return super().halves() + sorted(self._listed(LEASES))

    def remove(self, name: str) -> None:
        super().remove(name)
        with suppress(FileNotFoundError):
            self._removed(name)

    def _sizes(self) -> dict[str, int]:
        every = {name: size for top in KEPT for name, size in self._listed(top).items()}
        return {name: size for name, size in every.items() if inside(name) and NAME.fullmatch(name)}

    # What a run asks for and keeps

    def _keep(self, path: Callable[[], Path], folder: Path, data: bytes) -> str:
        name = super()._keep(path, folder, data)
        if name.startswith("records/"):
            with suppress(FileExistsError):  # another machine was taken for dead and was not: the first record stays
                self._create(name, data)
        else:
            self._put(name, data)
        return name

    def load_tensors(self, key: str) -> dict[str, Any] | None:
        found = super().load_tensors(key)
        if found is None:
            self._take([self._name(self.artefact(key))])
            found = super().load_tensors(key)
        return found

    @contextmanager
    def claim(self, key: str, wait: bool = True) -> Iterator[bool]:
        with super().claim(key, wait) as mine:  # among the processes of this machine
            n = self._lease(key, wait) if mine else 0
            if not n:
                yield False
                return
            over = threading.Event()
            beating = threading.Thread(target=self._beat, args=(f"{LEASES}/{key}.{n}", over), daemon=True)
            beating.start()
            try:
                self._take_records(key)
                yield True
            finally:
                over.set()
                beating.join()
                for older in range(n, 0, -1):
                    with suppress(OSError):  # it goes stale by itself
                        self._removed(f"{LEASES}/{key}.{older}")

    def _take_records(self, key: str) -> None:
        had = -1
        while had < (had := self.attempts(key)):
            self._take([self._name(self.record(key, had + 1))])

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _lease(self, key: str, wait: bool) -> int:
        """The number of a new lease, once nobody else holds one; without `wait` 0 if somebody does.

        A lease is a file that only one can create. Nobody writes over that of a machine that is gone: the next number
        is created.
        """
        name, n, seen, since = f"{LEASES}/{key}", 1, b"", 0.0
        while True:
            with suppress(FileExistsError):
                self._create(f"{name}.{n}", self._token())
                return n
            try:
                held = self._get(f"{name}.{n}")
            except FileNotFoundError:  # given back since
                n = 1
                continue
            of_this_machine = held.startswith(self.machine.encode())  # of a dead process: the lock is ours
            stale = held == seen and time.monotonic() - since > patience()
            if of_this_machine or stale or self._exists(f"{name}.{n + 1}"):
                n += 1
                continue
            if not wait:
                return 0
            if held != seen:
                seen, since = held, time.monotonic()
            time.sleep(patience() / LOOKS)

    def _beat(self, name: str, over: threading.Event) -> None:
        while not over.wait(patience() / BEATS):
            with suppress(OSError):
                self._put(name, self._token())

    def _token(self) -> bytes:
        return f"{self.machine} {uuid4().hex}".encode()

    # The storage

    def _asked(self, ask: Callable[[Any], T]) -> T:
        """What the storage answers; FileNotFoundError and FileExistsError pass, all else is Unreachable."""
        try:
            files, _ = fsspec.url_to_fs(self.url)
            files.invalidate_cache()  # of listings: others write there too
            return ask(files)
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:  # every protocol has errors of its own
            why = one_line(f"{type(error).__name__}: {error}", 300)
            raise Unreachable(f"URL: {self.url!r}: {why}") from error

    @property
    def _top(self) -> str:
        return self._asked(lambda files: str(files._strip_protocol(self.url))).rstrip("/")

    def _get(self, name: str) -> bytes:
        return self._asked(lambda files: bytes(files.cat_file(f"{self._top}/{name}")))

    def _put(self, name: str, data: bytes, mode: str = "wb") -> None:
        path = f"{self._top}/{name}"

        def put(files: Any) -> None:
            with files.open(path, mode) as file:
                file.write(data)

        try:
            self._asked(put)
        except FileNotFoundError:  # a file system, which has folders, unlike an object store
            self._asked(lambda files: files.makedirs(path.rpartition("/")[0], exist_ok=True))
            self._asked(put)

    def _create(self, name: str, data: bytes) -> None:
        """As _put. Raises FileExistsError for all but one of those that try."""
        self._put(name, data, "xb")

    def _exists(self, name: str) -> bool:
        return bool(self._asked(lambda files: files.exists(f"{self._top}/{name}")))

    def _removed(self, name: str) -> None:
        self._asked(lambda files: files.rm_file(f"{self._top}/{name}"))

    def _listed(self, folder: str) -> dict[str, int]:
        """Files of a folder and their bytes, by name from the top."""
        top = self._top

        def find(files: Any) -> dict[str, int]:
            found = files.find(f"{top}/{folder}", detail=True)
            return {_below(top, path): int(about["size"] or 0) for path, about in found.items()}

        try:
            return self._asked(find)
        except FileNotFoundError:
            return {}


def _below(top: str, path: str) -> str:
    """A path as a name in the store; some protocols put a slash before it and some do not."""
    return path.lstrip("/").removeprefix(top.lstrip("/")).lstrip("/")
