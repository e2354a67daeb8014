"""Puts a pack together: data, wheels, the script that sets them up, and a manifest of all of it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from gpu.data_pack import CannotPack, Split, pack_data
from gpu.wheel_pack import download, find_missing, project_needs, read_have

SETUP = """\
# Installs the wheels of this pack into a folder and prints what to export:
#   eval "$(bash gpu_pack/setup.sh FOLDER)"     in the root of the repository
set -eu
if [ $# -ne 1 ]; then echo "usage: bash $0 FOLDER   (the folder to install into)" >&2; exit 2; fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
target=$(cd "$1" && pwd)
if ls "$here"/wheels/*.whl > /dev/null 2>&1; then
  python3 -m pip install --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$target" \\
    "$here"/wheels/*.whl >&2
fi
printf 'export PYTHONPATH=%q\\n' "$target:$PWD${PYTHONPATH:+:$PYTHONPATH}"
printf 'export TINYDROP_DATA=%q\\n' "$here/data"
echo 'export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1'
"""
MANIFEST = "MANIFEST.json"
ASIDE = 64 * 1024  # bytes for the manifest and setup.sh


def make_pack(data: Path | None, out: Path, limit_mib: float, python: str, have: Path | None) -> str:
    """Makes the pack and returns the table of what is in it. Raises CannotPack; what was at `out` then stays.

    It is built beside `out` and takes its place in one step.
    """
    if data is None or not data.is_dir():
        raise CannotPack(f"--data={data}: no such folder; name the one with the datasets, or set TINYDROP_DATA")
    if have is not None and not have.is_file():
        raise CannotPack(f"--have={have}: no such file; make it on the other machine with `pip freeze`")
    if out.exists() and not (out / MANIFEST).is_file():
        raise CannotPack(f"--out={out} is there and is no pack; remove it, or name another folder")
    limit = int(limit_mib * 2**20)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        new = Path(scratch) / "new"
        missing = find_missing(project_needs(), read_have(have), python) if have else {}
        wheels = download(missing, python, new / "wheels")
        room = limit - ASIDE - sum(wheel.stat().st_size for wheel in wheels)
        if room <= 0:
            raise CannotPack(
                f"--limit-mib={limit_mib:g} holds none but {(limit - room) / 2**20:.1f} MiB of wheels; raise it, or "
                f"install the largest there: {max(wheels, key=lambda wheel: wheel.stat().st_size).name}"
            )
        splits = pack_data(data, new / "data", room)
        (new / "setup.sh").write_text(SETUP)
        (new / MANIFEST).write_text(json.dumps(describe(new, splits, data, python), indent=1) + "\n")
        total = sum(file.stat().st_size for file in new.rglob("*") if file.is_file())
        if total > limit:
            raise CannotPack(f"the pack weighs {total / 2**20:.2f} MiB, more than --limit-mib={limit_mib:g}; raise it")
        new.chmod(0o755)
        if out.exists():
            out.rename(Path(scratch) / "old")
        new.rename(out)
    return write_table(splits, [(wheel.name, (out / "wheels" / wheel.name).stat().st_size) for wheel in wheels], total)


def describe(pack: Path, splits: list[Split], data: Path, python: str) -> dict[str, object]:
    """What the manifest says. Neither times nor places, so that equal packs have equal ones."""
    files = sorted(file for file in pack.rglob("*") if file.is_file())
    made = {
        split.file: {
            "rows": split.rows, "of": split.of,
            "made_from": {str(file.relative_to(data)): sha256(file) for file in split.source},
        }
        for split in splits
    }  # fmt: skip
    return {
        "python": python,
        "files": {
            str(file.relative_to(pack)): {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files
        },
        "data": made,
    }


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_table(splits: list[Split], wheels: list[tuple[str, int]], total: int) -> str:
    """What was packed, one line each."""
    lines = [f"{'file':<52} {'rows':>8} {'of':>8} {'KiB':>8}"]
    lines += [f"{s.file:<52} {s.rows:>8,} {s.of:>8,} {s.size / 1024:>8,.0f}" for s in splits]
    lines += [f"{name[:70]:<70} {size / 1024:>8,.0f}" for name, size in wheels]
    return "\n".join([*lines, f"{'in all, with MANIFEST.json and setup.sh':<70} {total / 1024:>8,.0f}"])
