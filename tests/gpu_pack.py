"""Makes the folder that lets this project run on a machine without network: data, wheels and how to set them up.

`PYTHONPATH=. python tests/gpu_pack.py --help` says more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

from gpu.data_pack import CannotPack, Split, pack_data
from gpu.wheel_pack import download, find_missing, project_needs, read_have

ABOUT = """\
Makes a folder to copy, beside this repository, to a machine without network:

  data/          subsets of the datasets of TINYDROP_DATA, as the tasks read them, balanced over classes
  wheels/        the packages that the project needs and the machine lacks (with --have)
  setup.sh       installs the wheels there into a folder and prints what to export
  MANIFEST.json  every file with its bytes and SHA-256, rows, and what it was made from
"""
MORE = """\
examples:
  python tests/gpu_pack.py                                # the data alone: the machine has all packages
  ssh cluster pip freeze > there.txt                      # what is there
  python tests/gpu_pack.py --have there.txt --python 3.12 # and the wheels of what is not

then, on the other machine, in the root of the repository:
  eval "$(bash gpu_pack/setup.sh /tmp/packages)"
  python3 -m harness.cli list

Most of the limit that the wheels leave goes to cifar10; the table KIB in tests/gpu/data_pack.py divides it. The same
data give the same bytes. harness/run/README.md tells how to run there and bring the results back.
"""
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


def main() -> None:
    options = read_options()
    try:
        print(make_pack(options.data, options.out, options.limit_mib, options.python, options.have))
    except CannotPack as error:
        sys.exit(f"Error: {error}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=ABOUT, epilog=MORE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = os.environ.get("TINYDROP_DATA")
    parser.add_argument("--data", type=Path, default=data, help="the folder of the datasets (default: $TINYDROP_DATA)")
    parser.add_argument("--out", type=Path, default=Path("gpu_pack"), help="the folder to make (default: gpu_pack)")
    parser.add_argument("--limit-mib", type=float, default=40, help="the most it may weigh, in MiB (default: 40)")
    parser.add_argument("--python", default="3.12", help="the Python version there (default: 3.12)")
    parser.add_argument("--have", type=Path, help="a file that lists the packages there, as `pip freeze` prints them")
    return parser.parse_args()


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


if __name__ == "__main__":
    main()
