"""Does a folder hold the whole protocol, the same for every defense? `python -m harness.site.protocol FOLDER`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from harness.grid.grid import expand
from harness.grid.read import read_grid
from harness.report.cells import read_cells

PROTOCOL = Path(__file__).with_name("protocol_v1.yaml")
PLACE = ["task", "attack", "dose", "seed"]


def missing_cells(cells: pd.DataFrame, protocol: Path = PROTOCOL) -> pd.DataFrame:
    """The cells of the protocol that a table lacks: defense, task, attack, dose, seed and status.

    Every defense of the table, and `none`, has to have every cell, done or not applicable (which is graded as if there
    were no defense). status is what became of a cell, "missing" where there is none.
    """
    wanted = pd.DataFrame(
        [(cell.task.label, cell.attack.label, cell.dose, cell.seed) for cell in expand(read_grid(str(protocol)))],
        columns=PLACE,
    )
    defenses = list(dict.fromkeys(["none", *cells.defense]))
    every = wanted.merge(pd.DataFrame({"defense": defenses}), how="cross")
    found = cells.drop_duplicates(["defense", *PLACE])[["defense", *PLACE, "status"]]
    joined = every.merge(found, on=["defense", *PLACE], how="left").fillna({"status": "missing"})
    applicable = joined.status.isin(["done"]) | ((joined.status == "not applicable") & (joined.defense != "none"))
    return joined[~applicable].reset_index(drop=True)


def main() -> int:
    """Prints what is missing, by defense and task; exits 1 where something is."""
    parser = argparse.ArgumentParser(prog="python -m harness.site.protocol", description=(__doc__ or "").strip())
    parser.add_argument("folder", type=Path, help="a published folder, with cells.csv")
    path = parser.parse_args().folder / "cells.csv"
    if not path.is_file():
        print(f"{path}: no such file; `tinydrop report` writes it", file=sys.stderr)
        return 2
    lacking = missing_cells(read_cells(path))
    for (defense, task), part in lacking.groupby(["defense", "task"], sort=False):
        states = ", ".join(f"{n} {status}" for status, n in part.status.value_counts().items())
        print(f"{defense} on {task}: {states}")
    print("the whole protocol is there" if lacking.empty else f"{len(lacking):,} cells are missing: no entry")
    return int(not lacking.empty)


if __name__ == "__main__":
    raise SystemExit(main())
