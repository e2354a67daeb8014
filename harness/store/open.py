"""The store at an address: a folder, or a URL with a working copy."""

from __future__ import annotations

from pathlib import Path

from harness.store.folder import ORIGIN, Store


def open_store(address: str | Path) -> Store:
    """The store at a folder or a URL. The working copy of a URL opens as that URL's store."""
    if is_url(str(address)):
        from harness.store.remote import open_url  # imported late: fsspec, which a folder does not need

        return open_url(str(address))
    if (Path(address) / ORIGIN).is_file():
        from harness.store.remote import open_working_copy  # imported late: as above

        return open_working_copy(Path(address))
    return Store(Path(address))


def is_url(text: str) -> bool:
    return "://" in text
