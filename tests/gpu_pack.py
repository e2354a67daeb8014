"""Makes the folder that lets this project run on a machine without network: data, wheels and how to set them up.

`python tests/gpu_pack.py --help` says more.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from gpu.data_pack import CannotPack
from gpu.pack import make_pack

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


if __name__ == "__main__":
    main()
