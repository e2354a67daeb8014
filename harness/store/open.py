"""The store at an address: a folder, or a URL with a working copy."""

from __future__ import annotations

import os
from pathlib import Path

from harness.console import expand_home, one_line, quote
from harness.errors import BadGrid
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


def open_output(address: str | Path, field: str) -> Store:
    """The store that a run writes to; ~ and $HOME stand for what they do in a shell.

    field: what names it, for the BadGrid of a file, of a folder that cannot be written, and of no name at all.
    """
    text = str(address)
    if not text.strip() or "\0" in text:
        raise BadGrid(f"{field}: {quote(text)} is no folder's name; name one, or leave it out")
    if is_url(text):
        return open_store(text)
    path = expand_home(text)
    try:
        nearest = next(part for part in (path, *path.absolute().parents) if part.exists())
        if not nearest.is_dir():
            raise BadGrid(f"{field}: {quote(str(nearest))} is a file; name a folder")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise BadGrid(f"{field}: {quote(str(nearest))} cannot be written; name another folder")
    except (OSError, ValueError) as error:
        if isinstance(error, BadGrid):
            raise
        raise BadGrid(f"{field}: {quote(text)} cannot be a folder: {one_line(error)}") from None
    return open_store(path)


def is_url(text: str) -> bool:
    return "://" in text
