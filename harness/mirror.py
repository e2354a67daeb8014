"""A run on other storage: any URL that fsspec knows (s3://, gs://, sftp://, file://), as an exact copy of one folder.

For machines that share no file system: each runs its part of a grid (`tinydrop run --shard 1/4`) and pushes it to a URL
of its own; `tinydrop merge` makes one run of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec

from harness import ledger, upkeep
from harness.ledger import BrokenLedger
from harness.records import PLAN
from harness.store import Store, write_atomically


class BadUrl(ValueError):
    """No storage that can be used: one line with the URL and why."""


def is_url(text: str) -> bool:
    return "://" in text


def push(store: Store, url: str) -> int:
    """Copy what the mirror lacks and remove what the store no longer has; how many files were copied.

    The ledger goes last, so a push that is cut short leaves the mirror as it was. Raises BrokenLedger where the mirror
    is no earlier state of this store, or the store is not as it was written.
    """
    upkeep.refuse_damaged(store)
    files, root = _opened(url)
    mine, theirs = ledger.read(store.root), ledger.parse(_read(files, f"{root}/{ledger.NAME}"))
    if [entry.hash for entry in theirs] != [entry.hash for entry in mine[: len(theirs)]]:
        raise BrokenLedger(f"{url}: holds another run; give every machine a URL of its own and `tinydrop merge` them")
    wanted, there = ledger.files(mine), ledger.files(theirs)
    new = sorted(path for path, digest in wanted.items() if there.get(path) != digest)
    for path in [*new, PLAN, ledger.NAME]:
        if (store.root / path).exists():
            files.makedirs(f"{root}/{path}".rpartition("/")[0], exist_ok=True)
            files.pipe_file(f"{root}/{path}", (store.root / path).read_bytes())
    for path in sorted(set(there) - set(wanted)):
        files.rm_file(f"{root}/{path}")
    return len(new)


def fetch(url: str, into: Path) -> Store:
    """A copy of what the mirror's ledger names, nothing else. Raises FileNotFoundError where there is no run."""
    files, root = _opened(url)
    book = _read(files, f"{root}/{ledger.NAME}")
    if not book:
        raise FileNotFoundError(f"OTHER: {url!r} holds no run; `tinydrop push` one there")
    for path in [*ledger.files(ledger.parse(book)), PLAN]:
        data = _read(files, f"{root}/{path}") if path == PLAN or upkeep.inside(path) else b""
        if data:
            write_atomically(into / path, data)
    write_atomically(into / ledger.NAME, book)
    return Store(into)


def _opened(url: str) -> tuple[Any, str]:
    """A file system and the path in it. Raises BadUrl."""
    try:
        files, root = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:  # its library is not installed, or nobody knows the protocol
        raise BadUrl(f"URL: {url!r}: {' '.join(str(error).split())}") from None
    return files, root.rstrip("/")


def _read(files: Any, path: str) -> bytes:
    """Empty where there is no such file."""
    try:
        data: bytes = files.cat_file(path)
    except FileNotFoundError:
        return b""
    return data
