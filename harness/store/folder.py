"""A store in a folder. Every file is written atomically and entered in the ledger; none is ever unpickled."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from harness.store import ledger

if TYPE_CHECKING:
    from torch import Tensor

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
KEY = re.compile(r"[0-9a-f]{32}")
TRACKED = ("records", "artefacts", "findings")  # folders of which every file is in the ledger
PLAN = "plan.json"
DIGEST = "tinydrop.digest"  # of an artefact's tensors, in its header
ORIGIN = "origin"  # a file of a working copy: the URL that it belongs to


def write_atomically(path: Path, data: bytes | str) -> None:
    """All of the file or none of it, also when the process is killed or the disk is full."""
    with _temporary_file(path.parent, data.encode() if isinstance(data, str) else data) as temporary:
        os.replace(temporary, path)


@contextmanager
def _temporary_file(folder: Path, data: bytes) -> Iterator[str]:
    """A temporary file in this folder with this content, flushed to the disk; removed unless the block renames it."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = str(folder / f".{uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:  # not tempfile's, which nobody else may read, whatever the umask says
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)


@dataclass(frozen=True)
class Store:
    """root/artefacts/ab/<key>.safetensors, root/records/<key>.json, root/findings/<key>/...,
    root/locks/<key>, root/logs/<key>.txt.

    A file is entered in root/ledger.jsonl before it is written. A kill in between leaves an entry without its file,
    which the next run makes, and never a file without an entry.

    A folder shares its files by being one; pull, push, push_ledger and restore_damaged are for a store whose files are
    copies of others elsewhere (harness.store.remote), and do nothing here.
    """

    root: Path

    @property
    def address(self) -> str:
        """What `open_store` makes the same store of, on another machine too where that is possible."""
        return str(self.root)

    def pull(self) -> None:
        """Copy what others have recorded. Called before a grid is planned and after its last cell."""

    def push(self) -> None:
        """Send what others do not have yet. Called before the first cell of a run and after its last."""

    def restore_damaged(self) -> None:
        """Replace damaged copies by their originals. Called before files are verified."""

    def push_ledger(self) -> None:
        """Send the ledger and the plan. Called after a victim's cells, and when files were removed or merged."""

    def names(self) -> list[str]:
        """Every file of the TRACKED folders, relative to the store."""
        paths = [p for top in TRACKED for p in (self.root / top).rglob("*") if p.is_file() and p.suffix != ".tmp"]
        return [path.relative_to(self.root).as_posix() for path in paths]

    def read(self, name: str) -> bytes:
        """The content of one of `names`."""
        return (self.root / name).read_bytes()

    def ledgers(self) -> dict[str, bytes]:
        """The bytes of every ledger that enters files of this store, by name; a folder has one."""
        path = self.root / ledger.LEDGER_FILE
        return {ledger.LEDGER_FILE: path.read_bytes()} if path.is_file() else {}

    def leftovers(self) -> list[str]:
        """Names of the half-written temporary files of killed processes. They are in no ledger."""
        paths = [p for top in TRACKED for p in (self.root / top).rglob(".*.tmp")]
        return [path.relative_to(self.root).as_posix() for path in paths]

    def remove(self, name: str) -> None:
        """Remove a file, and enter that in the ledger unless the file was never in it."""
        with ledger.open_ledger(self.root) as book:
            if is_tracked(name) and not name.endswith(".tmp"):
                book.append("removed", path=name)
            (self.root / name).unlink(missing_ok=True)

    def size(self, name: str) -> int:
        """The bytes of a file."""
        return (self.root / name).stat().st_size

    def artefact_path(self, key: str) -> Path:
        """The file for this key's tensors. ValueError for a key that is not 32 hex digits: none leaves the store."""
        return self.root / "artefacts" / _check_key(key)[:2] / f"{key}.safetensors"

    def record_path(self, key: str, attempt: int = 1) -> Path:
        number = "" if attempt == 1 else f".{attempt}"
        return self.root / "records" / f"{_check_key(key)}{number}.json"

    def count_attempts(self, key: str) -> int:
        """How many records this key has; the last is the newest. Does not list the folder."""
        count = 0
        while self.record_path(key, count + 1).exists():
            count += 1
        return count

    def findings_folder(self, key: str) -> Path:
        """The folder for what the defense of this cell saves."""
        return self.root / "findings" / _check_key(key)

    def log_path(self, key: str) -> Path:
        """The file with the output of a failed cell. It is in no ledger."""
        return self.root / "logs" / f"{_check_key(key)}.txt"

    def add_file(self, path: Path, data: bytes) -> str:
        """Enter a file in the ledger and write it; returns its path relative to the store."""
        return self._add_file(lambda: path, path.parent, data)

    def _add_file(self, path: Callable[[], Path], folder: Path, data: bytes) -> str:
        # The data is written before the ledger is locked, for others wait for the lock. `path` is called under it.
        with _temporary_file(folder, data) as temporary, ledger.open_ledger(self.root) as book:
            relative = path().relative_to(self.root).as_posix()
            book.append("file", path=relative, sha256=hashlib.sha256(data).hexdigest())
            os.replace(temporary, self.root / relative)
        return relative

    def save_tensors(self, key: str, tensors: dict[str, Tensor]) -> None:
        from safetensors.torch import save

        from harness.keys.content import digest  # imported late: torch, which `tinydrop status` need not load

        plain: dict[str, Tensor] = {}
        storages = set()
        for name, tensor in tensors.items():
            ready = tensor.detach().cpu().contiguous()
            # safetensors refuses shared memory, as that of an output layer that is tied to the embedding
            plain[name] = ready.clone() if ready.untyped_storage().data_ptr() in storages else ready
            storages.add(ready.untyped_storage().data_ptr())
        self.add_file(self.artefact_path(key), save(plain, {DIGEST: digest(plain)}))

    def load_tensors(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of this key, or None. A damaged file is removed with a warning, so that it is made again."""
        path = self.artefact_path(key)
        try:
            return _load_verified(path.read_bytes())
        except FileNotFoundError:
            return None
        except Exception as error:  # safetensors has no error class of its own for every damage
            warnings.warn(f"damaged artefact {path.name} ({error}): it is computed again", stacklevel=2)
            path.unlink(missing_ok=True)
            return None

    @contextmanager
    def claim(self, key: str, wait: bool = True) -> Iterator[bool]:
        """A lock, so that one process at a time makes an artefact or runs a cell; yields whether this process has it.

        False only without `wait`. The lock ends with the process that holds it, however that ends.
        """
        path = self.root / "locks" / _check_key(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    def load_or_make_tensors(self, key: str, make: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], bool]:
        """The tensors of this key, made and saved if there are none, and whether they were made now."""
        tensors = self.load_tensors(key)
        if tensors is not None:
            return tensors, False
        with self.claim(key):
            tensors = self.load_tensors(key)  # another process may have made them while this one waited
            if tensors is not None:
                return tensors, False
            tensors = make()
            self.save_tensors(key, tensors)
            return tensors, True

    def write_record(self, record: dict[str, Any]) -> Path:
        """Append a record; an older one of the same key stays as it is."""
        key, data = record["key"], json.dumps(record, indent=1, sort_keys=True, allow_nan=False).encode()
        name = self._add_file(
            lambda: self.record_path(key, self.count_attempts(key) + 1), self.record_path(key).parent, data
        )
        return self.root / name


def _load_verified(data: bytes) -> dict[str, Tensor]:
    """The tensors of a file, if they are those that were saved; safetensors itself does not notice a flipped bit."""
    from safetensors.torch import load

    from harness.keys.content import digest  # imported late: torch, which `tinydrop status` need not load

    tensors = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    if header.get("__metadata__", {}).get(DIGEST) != digest(tensors):
        raise ValueError("its content is not what was written")
    return tensors


def is_tracked(name: str) -> bool:
    """Whether a name from a ledger is in one of the TRACKED folders."""
    parts = Path(name).parts
    return bool(parts) and parts[0] in TRACKED and ".." not in parts


def _check_key(key: str) -> str:
    if not KEY.fullmatch(key):
        raise ValueError(f"store key {key!r} is not 32 hex digits")
    return key
