"""A run as one archive that somebody else can check: records and their findings, the ledger, the plan; no weights.

An archive is checked before anything of it is used: names, sizes, hashes, the ledger's chain, every record's schema,
and whether a real run could have produced its numbers. These checks do not expose a run that was invented as a whole,
ledger included: ask for the head of the ledger early, and compare it with the one that the leaderboard shows.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel, ConfigDict, ValidationError

import harness
from harness.errors import BadSubmission, DamagedPlan, NewerSchema
from harness.site.plausibility import find_contradiction, find_doubt
from harness.store import ledger, maintenance, records
from harness.store.folder import PLAN, Store, write_atomically

MANIFEST = "manifest.json"
PACKED = re.compile(
    r"ledger\.jsonl|plan\.json|records/[0-9a-f]{32}(\.[1-9][0-9]*)?\.json"
    r"|findings/[0-9a-f]{32}/[A-Za-z0-9_-][A-Za-z0-9_.-]*\.(png|wav|json)"
)
LARGEST = 1 << 30  # bytes of all files together, unpacked


class Manifest(BaseModel):
    """The archive's own list of what it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: int = records.SCHEMA
    tinydrop: str
    head: str  # hash of the ledger's newest entry
    files: dict[str, str]  # path in the archive -> SHA-256


def is_packed(path: str) -> bool:
    """Whether a file with this path in a store goes into its archive."""
    return PACKED.fullmatch(path) is not None


def pack(store: Store, to: Path) -> Manifest:
    """Write the archive of a store; the same store gives the same bytes. Raises BadSubmission for a damaged store."""
    problems = maintenance.verify(store).problems
    if problems:
        raise BadSubmission(
            f"DIR: {str(store.root)!r}: {problems[0]}; `tinydrop verify` lists everything that is wrong"
        )
    paths = sorted(p.relative_to(store.root).as_posix() for p in store.root.rglob("*") if p.is_file())
    files = {path: (store.root / path).read_bytes() for path in paths if is_packed(path)}
    if not any(path.startswith("records/") for path in files):
        raise BadSubmission(f"DIR: {str(store.root)!r} has no record yet; see `tinydrop status {store.root}`")
    head = ledger.read_ledger(store.root)[-1].hash
    hashes = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    manifest = Manifest(tinydrop=harness.__version__, head=head, files=hashes)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in {MANIFEST: manifest.model_dump_json(indent=1).encode(), **files}.items():
            archive.writestr(zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED)  # every file is dated 1980: no clock
    write_atomically(to, out.getvalue())
    return manifest


@contextmanager
def unpack(path: Path, largest: int = LARGEST) -> Iterator[Store]:
    """The store in an archive, checked, until the block ends. Raises BadSubmission, and NewerSchema as `records.load`.

    largest: bytes, of all files unpacked.
    """
    with TemporaryDirectory(prefix="tinydrop-") as folder:
        store = Store(Path(folder))
        try:
            with zipfile.ZipFile(path) as archive:
                manifest = _extract(archive, store.root, largest)
        except (
            zipfile.BadZipFile,
            zipfile.LargeZipFile,
            zlib.error,
            NotImplementedError,
            RuntimeError,
            EOFError,
        ) as error:
            if isinstance(error, NewerSchema):
                raise
            raise BadSubmission(f"{path}: not readable as an archive ({error})") from None
        except BadSubmission as error:
            raise BadSubmission(f"{path}: {error}") from None
        for problem in _problems(store, manifest):
            raise BadSubmission(f"{path}: {problem}")
        yield store


def _extract(archive: zipfile.ZipFile, root: Path, largest: int) -> Manifest:
    """Write the expected files; every name and size is checked before the first byte is unpacked."""
    infos = archive.infolist()
    names = [info.filename for info in infos]
    twice = {name for name, n in Counter(names).items() if n > 1}
    for info in infos:
        if info.filename != MANIFEST and not is_packed(info.filename):
            raise BadSubmission(f"{info.filename[:80]!r}: unexpected file")
        if stat.S_ISLNK(info.external_attr >> 16) or info.filename in twice:
            raise BadSubmission(f"{info.filename!r}: symbolic link or duplicate entry")
    size = sum(info.file_size for info in infos)
    if size > largest:
        raise BadSubmission(f"holds {size / 1e6:,.0f} MB, more than the limit of {largest / 1e6:,.0f} MB")
    manifest = _manifest(archive, names)
    for name in names:
        if name != MANIFEST:
            data = _read(archive, name)
            if hashlib.sha256(data).hexdigest() != manifest.files[name]:
                raise BadSubmission(f"{name}: does not have the hash that {MANIFEST} lists")
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
    return manifest


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except OSError as error:  # a damaged zip directory points outside of the file
        raise BadSubmission(f"{name}: not readable at its place in the archive ({error})") from None


def _manifest(archive: zipfile.ZipFile, names: list[str]) -> Manifest:
    if MANIFEST not in names:
        raise BadSubmission(f"has no {MANIFEST}; `tinydrop submit` writes archives")
    try:
        tree = json.loads(_read(archive, MANIFEST))
        schema = tree.get("schema_version", 0)
        if isinstance(schema, int) and schema > records.SCHEMA:
            raise NewerSchema(
                f"{archive.filename}: schema {schema}, this tinydrop reads up to {records.SCHEMA}; upgrade it"
            )
        manifest = Manifest.model_validate(tree)
    except (ValidationError, ValueError, AttributeError, RecursionError) as error:
        raise BadSubmission(f"{MANIFEST}: damaged ({str(error).splitlines()[0]})") from None
    unmatched = sorted(set(manifest.files) ^ (set(names) - {MANIFEST}))
    if unmatched:
        raise BadSubmission(f"{unmatched[0][:80]}: is only in the archive or only in {MANIFEST}")
    return manifest


def _problems(store: Store, manifest: Manifest) -> Iterator[str]:
    """The problems of an unpacked store, one by one."""
    verified = maintenance.verify(store, only=is_packed)
    yield from verified.problems
    if verified.heads != [manifest.head]:
        yield f"{ledger.LEDGER_FILE}: was cut: it does not end with the head that {MANIFEST} names"
    for path in sorted((store.root / "records").glob("*.json")):
        record = records.load(path)
        why = find_doubt(record) if record else "not a valid record"
        if why:
            yield f"records/{path.name}: {why}"
    try:
        plan = records.read_plan(store) if (store.root / PLAN).is_file() else []
    except DamagedPlan as error:
        yield str(error).removeprefix(f"{store.root}/")
        return
    if why := find_contradiction(records.load_all(store).values(), {cell["key"]: cell for cell in plan}):
        yield f"records/{why}"
