"""The content of files and folders as a hash, and where published data lies. What is kept of data is forgotten here."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from tasks.caches import forget
from tasks.plugin import BadInput, Plugin, expand_path, is_litter

PART = "/./"
UNSURE = 2_000_000_000  # ns; a file that changed so recently may change again and look the same to the system
Stamp = tuple[int, ...]  # what the system says of a file: device, inode, size, times; and a time that makes it unique

read_from: set[Path] = set()  # folders of published datasets that this process has read
_content: dict[tuple[str, bool], str] = {}  # hashes of files and folders, when they were last looked at
_place: list[tuple[str, str]] = []  # the TINYDROP_DATA and the working directory of that time


def data_root() -> Path | None:
    """The folder that TINYDROP_DATA names, there or not."""
    root = os.environ.get("TINYDROP_DATA")
    return expand_path(root) if root else None


def data_folder(name: str) -> Path | None:
    """TINYDROP_DATA/name if that is a folder."""
    root = data_root()
    return root / name if root and name and (root / name).is_dir() else None


def named_files(plugin: Plugin) -> list[str]:
    """What a plug-in's `files()` names. Raises BadInput for what is no list of paths, or is not there."""
    paths: object = plugin.files()
    if not isinstance(paths, list | tuple) or not all(isinstance(path, str | os.PathLike) for path in paths):
        raise BadInput(f"{plugin.name}.files() returned {paths!r}; return a list of paths, as [*super().files(), path]")
    names = [os.fspath(path) for path in paths]
    if gone := next((name for name in names if not os.path.exists(name)), None):
        raise BadInput(
            f"{plugin.name}.files() names {gone!r}, which is not there; name only files and folders that are"
        )
    return names


def name_parts(folder: str | Path, names: Iterable[str]) -> list[str]:
    """Entries of a folder of which nothing else counts: paths with `/./` before the name that counts, as in rsync."""
    return [f"{folder}{PART}{name}" for name in names]


def group_parts(paths: Iterable[str]) -> dict[str, list[str]]:
    """The files and folders that paths are about, and which entries count of each: "" is all of it."""
    found: dict[str, list[str]] = {}
    for path in paths:
        top, mark, name = path.rpartition(PART)
        found.setdefault(top if mark else path, []).append(name if mark else "")
    return found


def published_files(folder: Path) -> list[str]:
    """What `datasets` reads of a folder of published data: its Parquet files, and a README.md, which may name splits.

    All of it where there are none.
    """
    names = [name for name, _, _ in _files_in(str(folder))]
    found = [name for name in names if name == "README.md" or name.endswith(".parquet")]
    return name_parts(folder, found) or [str(folder)]


def list_parquet(folder: Path) -> list[str]:
    """The paths of the Parquet files in a folder."""
    return [file for name, file, _ in _files_in(str(folder)) if name.endswith(".parquet")]


def find_copies(folder: Path) -> tuple[str, str] | None:
    """Two Parquet files in a folder that have the same content, if there are such."""
    seen: dict[str, str] = {}
    for name, file, stamp in _files_in(str(folder)):
        if name.endswith(".parquet") and (first := seen.setdefault(_hash_file(file, stamp), name)) != name:
            return first, name
    return None


def fingerprint(paths: Iterable[str]) -> str:
    """The content of these files and folders, as one hash. Where it is not what it was, the process forgets its data.

    Raises BadInput for a file that cannot be read.
    """
    hashes = [files_hash(top, *parts) for top, parts in group_parts(paths).items()]
    place = os.environ.get("TINYDROP_DATA", ""), os.getcwd()
    if _place and _place != [place]:  # the same names may now be other files
        forget()
    _place[:] = [place]
    return hashlib.sha256(";".join(hashes).encode()).hexdigest()[:32]


def files_hash(path: str, *parts: str) -> str:
    """The hash of a file's content, or of a folder's files and their names in it: what links lead to counts as well.

    parts: the entries of the folder that count, where not all do.

    Files that no reader looks at (`is_litter`) do not count, nor do times. A file is read again only where the system
    says that it was written since. Raises BadInput for a file that cannot be read.
    """
    h = hashlib.sha256()
    parts = parts or ("",)
    for name, file, stamp in sorted(found for part in parts for found in _files_in(path, part)):
        h.update(os.fsencode(name) + b":" + _hash_file(file, stamp).encode() + b";")
    place, content = (os.path.abspath(path), parts == ("",)), h.hexdigest()[:32]
    if _content.get(place, content) != content:
        forget()
    _content[place] = content
    return content


def _files_in(top: str, part: str = "") -> list[tuple[str, str, Stamp]]:
    """Names relative to a folder, paths and stamps, in the order of the names; a file is the only one in itself.

    part: the only entry of the folder that is looked at.
    """
    path = os.path.join(top, part) if part else top
    if os.path.isdir(path):
        return sorted(_walk(path, part and f"{part}/", frozenset()))
    try:
        return [(part or ".", path, _stamp(os.stat(path)))]
    except (OSError, ValueError):  # a name may hold what no path can
        return [(part or ".", path, ())]


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, str, Stamp]]:
    """The files below a folder. above: the folders on the way to it, as a link may lead back to one of them."""
    try:
        found = os.stat(folder)
        entries = list(os.scandir(folder))
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read ({error.strerror})") from None
    here = (found.st_dev, found.st_ino)
    if here in above:
        return
    for entry in entries:
        if is_litter(Path(entry.name)):
            continue
        try:
            found = entry.stat()
        except OSError:  # a link that leads nowhere counts by its name
            yield prefix + entry.name, entry.path, ()
            continue
        if stat.S_ISDIR(found.st_mode):
            yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {here})
        elif stat.S_ISREG(found.st_mode):  # no pipe or device
            yield prefix + entry.name, entry.path, _stamp(found)


def hash_file(file: str | Path) -> str:
    """SHA-256 of a file, read once and again when it has changed. Raises BadInput where it cannot be read."""
    return _hash_file(str(file), _stamp(os.stat(file)))


def _stamp(found: os.stat_result) -> Stamp:
    """What tells one content of a file from the next without reading it."""
    now = time.time_ns()
    unsure = now - found.st_ctime_ns < UNSURE  # the system's clock ticks slowly: two writes may have one time
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, now * unsure


@lru_cache(maxsize=2**20)
def _hash_file(file: str, stamp: Stamp) -> str:
    """SHA-256 of a file, or "none" for a link that leads nowhere. stamp: so that a file that changed is another one."""
    if not stamp:
        return "none"
    try:
        with open(file, "rb") as data:
            return hashlib.file_digest(data, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from None
