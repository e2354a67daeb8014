"""Does a folder hold the whole protocol, the same for every defense? `python -m harness.site.protocol FOLDER`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from harness.errors import BadSubmission
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
    defenses = list(dict.fromkeys(["none", *cells.defense]))
    every = _wanted(protocol).merge(pd.DataFrame({"defense": defenses}), how="cross")
    found = cells.drop_duplicates(["defense", *PLACE])[["defense", *PLACE, "status"]]
    joined = every.merge(found, on=["defense", *PLACE], how="left").fillna({"status": "missing"})
    applicable = joined.status.isin(["done"]) | ((joined.status == "not applicable") & (joined.defense != "none"))
    return joined[~applicable].reset_index(drop=True)


def keep_entries(cells: pd.DataFrame, protocol: Path = PROTOCOL) -> tuple[pd.DataFrame, dict[str, int]]:
    """The protocol's cells of `none` and of every defense that lacks none of them; of the others, how many they lack.

    Raises BadSubmission where the undefended victims are not whole, without which nothing can be ranked.
    """
    lacking = missing_cells(cells, protocol)
    lacks = lacking.defense.value_counts().to_dict()
    if "none" in lacks:
        raise BadSubmission(f"--protocol: `none` lacks {lacks['none']:,} of its cells; run {protocol.name} first")
    wanted = pd.MultiIndex.from_frame(_wanted(protocol))
    inside = pd.MultiIndex.from_frame(cells[PLACE]).isin(wanted)
    return cells[inside & ~cells.defense.isin(lacks)].reset_index(drop=True), lacks


def _wanted(protocol: Path) -> pd.DataFrame:
    """The cells of a protocol, one row each, defenses aside."""
    cells = expand(read_grid(str(protocol)))
    return pd.DataFrame([(c.task.label, c.attack.label, c.dose, c.seed) for c in cells], columns=PLACE)


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
