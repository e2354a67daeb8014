"""The store at an address: a folder, or a URL with a working copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.store.folder import ORIGIN, Store

if TYPE_CHECKING:
    pass


def open_store(address: str | Path) -> Store:
    """The store at a folder or a URL; a folder that is the working copy of a URL is that URL's."""
    if is_url(str(address)):
        from harness.store.remote import working_copy

        return working_copy(str(address))
    if (Path(address) / ORIGIN).is_file():
        from harness.store.remote import of_folder

        return of_folder(Path(address))
    return Store(Path(address))


def is_url(text: str) -> bool:
    return "://" in text
