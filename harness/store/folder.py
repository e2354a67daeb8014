"""A folder of artefacts and records. Every file is written atomically and stands in the ledger; none is unpickled."""

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
TRACKED = ("records", "artefacts", "findings")  # folders whose every file stands in the ledger
PLAN = "plan.json"
DIGEST = "tinydrop.digest"  # of an artefact's tensors, in its header
ORIGIN = "origin"  # a file with the URL that a folder is the working copy of


def write_atomically(path: Path, data: bytes | str) -> None:
    """All of the file or none of it, also when the process is killed or the disk is full."""
    with _temporary_file(path.parent, data.encode() if isinstance(data, str) else data) as temporary:
        os.replace(temporary, path)


@contextmanager
def _temporary_file(folder: Path, data: bytes) -> Iterator[str]:
    """A temporary file of that folder, on the disk; it goes unless it is given a name."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = str(folder / f".{uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as f:  # not tempfile's: others may read it if the umask lets them
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)


@dataclass(frozen=True)
class Store:
    """root/artefacts/ab/<key>.safetensors, root/records/<key>.json, root/findings/<key>/...,
    root/locks/<key>, root/logs/<key>.txt.

    A file is entered in root/ledger.jsonl before it is written: a kill in between leaves an entry without its file,
    which the next run makes, and never a file that nobody entered.
    """

    root: Path

    @property
    def address(self) -> str:
        """What `opened` makes the same store of, on other machines too if that can be."""
        return str(self.root)

    def pull(self) -> None:
        """Take over what others have recorded. In a folder it is there already; see harness.store.remote."""

    def push(self) -> None:
        """Hand over what was kept here and has not been. In a folder others see it already."""

    def restore_damaged(self) -> None:
        """Throw copies away that are damaged, and take them again. A folder holds no copies."""

    def push_ledger(self) -> None:
        """The ledger and the plan of `push` alone."""

    def names(self) -> list[str]:
        """Every kept file, relative to the store."""
        found = [p for top in TRACKED for p in (self.root / top).rglob("*") if p.is_file() and p.suffix != ".tmp"]
        return [p.relative_to(self.root).as_posix() for p in found]

    def read(self, name: str) -> bytes:
        """The content of one of `names`."""
        return (self.root / name).read_bytes()

    def ledgers(self) -> dict[str, bytes]:
        """The chains that speak of these files, by name: of a folder its own."""
        path = self.root / ledger.LEDGER_FILE
        return {ledger.LEDGER_FILE: path.read_bytes()} if path.is_file() else {}

    def leftovers(self) -> list[str]:
        """What killed processes left behind, relative to the store; in no ledger."""
        found = [p for top in TRACKED for p in (self.root / top).rglob(".*.tmp")]
        return [p.relative_to(self.root).as_posix() for p in found]

    def remove(self, name: str) -> None:
        """Remove a file, and say so in the ledger if it stands there."""
        with ledger.open_ledger(self.root) as book:
            if is_tracked(name) and not name.endswith(".tmp"):
                book.append("removed", path=name)
            (self.root / name).unlink(missing_ok=True)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return (self.root / name).stat().st_size

    def artefact_path(self, key: str) -> Path:
        """Where the tensors of this key lie. ValueError for anything but 32 hex digits: no key leaves the store."""
        return self.root / "artefacts" / _check_key(key)[:2] / f"{key}.safetensors"

    def record(self, key: str, attempt: int = 1) -> Path:
        return (
            self.root / "records" / (f"{_check_key(key)}.json" if attempt == 1 else f"{_check_key(key)}.{attempt}.json")
        )

    def count_attempts(self, key: str) -> int:
        """How many records there are of this key; the last is the newest. Looks at no other file of the folder."""
        n = 0
        while self.record(key, n + 1).exists():
            n += 1
        return n

    def findings(self, key: str) -> Path:
        """A folder for what the defense of this cell wants kept."""
        return self.root / "findings" / _check_key(key)

    def log(self, key: str) -> Path:
        """What this cell said in a worker, where it failed. In no ledger."""
        return self.root / "logs" / f"{_check_key(key)}.txt"

    def keep(self, path: Path, data: bytes) -> str:
        """Enter a file in the ledger and write it; its path relative to the store."""
        return self._keep(lambda: path, path.parent, data)

    def _keep(self, path: Callable[[], Path], folder: Path, data: bytes) -> str:
        # Others wait for the ledger's lock, so what can be done before it is; `path` is asked for under it.
        with _temporary_file(folder, data) as temporary, ledger.open_ledger(self.root) as book:
            relative = path().relative_to(self.root).as_posix()
            book.append("file", path=relative, sha256=hashlib.sha256(data).hexdigest())
            os.replace(temporary, self.root / relative)
        return relative

    def save_tensors(self, key: str, tensors: dict[str, Tensor]) -> None:
        from safetensors.torch import save

        from harness.keys.content import digest

        plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        self.keep(self.artefact_path(key), save(plain, {DIGEST: digest(plain)}))

    def load_tensors(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of this key, or None; a damaged file is removed with a warning, so that it is made again."""
        path = self.artefact_path(key)
        try:
            return _load_verified(path.read_bytes())
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever safetensors says of a file it cannot read
            warnings.warn(f"damaged artefact {path.name} ({error}): it is computed again", stacklevel=2)
            path.unlink(missing_ok=True)
            return None

    @contextmanager
    def claim(self, key: str, wait: bool = True) -> Iterator[bool]:
        """One process at a time makes an artefact or runs a cell; whether this one may. False only without `wait`.

        The lock goes with the process that held it, however that ends.
        """
        path = self.root / "locks" / _check_key(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    def tensors(self, key: str, make: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], bool]:
        """The tensors of this key, made and kept if they are not there; and whether they were made now."""
        found = self.load_tensors(key)
        if found is not None:
            return found, False
        with self.claim(key):
            found = self.load_tensors(key)  # another process may have made it while this one waited
            if found is not None:
                return found, False
            made = make()
            self.save_tensors(key, made)
            return made, True

    def write_record(self, record: dict[str, Any]) -> Path:
        """Append a record; an older one of the same key stays as it is."""
        key, data = record["key"], json.dumps(record, indent=1, sort_keys=True, allow_nan=False).encode()
        return self.root / self._keep(
            lambda: self.record(key, self.count_attempts(key) + 1), self.record(key).parent, data
        )


def _load_verified(data: bytes) -> dict[str, Tensor]:
    """The tensors of a file, if they are those that were saved: safetensors itself sees no bit that fell over."""
    from safetensors.torch import load

    from harness.keys.content import digest

    tensors = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    if header.get("__metadata__", {}).get(DIGEST) != digest(tensors):
        raise ValueError("its content is not what was written")
    return tensors


def is_tracked(name: str) -> bool:
    """Does a name of the ledger lie where a store keeps its files?"""
    parts = Path(name).parts
    return bool(parts) and parts[0] in TRACKED and ".." not in parts


def _check_key(key: str) -> str:
    if not KEY.fullmatch(key):
        raise ValueError(f"store key {key!r} is not 32 hex digits")
    return key
