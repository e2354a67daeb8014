"""Leases: which cell or artefact a machine is working on, told to the other machines at the same URL.

A lease is a file, leases/<key>.<n>, which only one machine can create. Its holder renews it, and removes it at the end.
A machine that sees a lease unchanged for 90 seconds (TINYDROP_LEASE), by its own clock, takes over by creating lease
n + 1. Nobody overwrites a lease of another.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

from harness.errors import Unreachable
from harness.store.storage import Storage

LEASE = "TINYDROP_LEASE"  # seconds without a renewal after which a lease's machine counts as gone; 90 without it
RENEWALS = 6  # in that time
LOOKS = 45  # at another machine's lease in that time
FOLDER = "leases"


def lease_seconds() -> float:
    """The seconds after which a lease that is not renewed may be taken over. Raises Unreachable for a wrong setting."""
    setting = os.environ.get(LEASE, "90")
    if not re.fullmatch(r"\d+(\.\d+)?", setting) or not float(setting):
        raise Unreachable(f"{LEASE}={setting!r}: seconds without a sign of life after which a machine is gone, e.g. 90")
    return float(setting)


@dataclass(frozen=True)
class Leases:
    """The leases at a storage, as one machine takes and holds them."""

    storage: Storage
    machine: str

    def take(self, key: str, wait: bool) -> int:
        """The number of a new lease, once nobody else holds one; without `wait` 0 if somebody does."""
        name, n, seen, since = f"{FOLDER}/{key}", 1, b"", 0.0
        while True:
            with suppress(FileExistsError):
                self.storage.create(f"{name}.{n}", self._token())
                return n
            try:
                held = self.storage.get(f"{name}.{n}")
            except FileNotFoundError:  # given back since
                n = 1
                continue
            of_this_machine = held.startswith(self.machine.encode())  # by a dead process, for this one has the lock
            stale = held == seen and time.monotonic() - since > lease_seconds()
            if of_this_machine or stale or self.storage.exists(f"{name}.{n + 1}"):
                n += 1
                continue
            if not wait:
                return 0
            if held != seen:
                seen, since = held, time.monotonic()
            time.sleep(lease_seconds() / LOOKS)

    @contextmanager
    def hold(self, key: str, n: int) -> Iterator[None]:
        """Renew lease n of a key until the block ends, then give it back with those that it took over."""
        over = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(f"{FOLDER}/{key}.{n}", over), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            over.set()
            renewing.join()
            for number in range(n, 0, -1):
                with suppress(OSError):  # it goes stale by itself
                    self.storage.remove(f"{FOLDER}/{key}.{number}")

    def _renew(self, name: str, over: threading.Event) -> None:
        while not over.wait(lease_seconds() / RENEWALS):
            with suppress(OSError):
                self.storage.put(name, self._token())

    def _token(self) -> bytes:
        return f"{self.machine} {uuid4().hex}".encode()
