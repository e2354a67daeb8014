"""The commands that show what is recorded: the table of a run, and one record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import run
from harness.cli.usage import refuse
from harness.console import out

if TYPE_CHECKING:
    from harness.store.records import Record


def report(
    dir_: run.Dir,
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write the summary table into this file.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="The same table as JSON, into this file.")] = None,
    stealth: Annotated[
        bool, typer.Option("--stealth", help="Also print what a routine check would have seen of the poison.")
    ] = False,
) -> None:
    """Print the table and rewrite CSV and figures from the records, or from the cells.csv of a published folder.

    They go into DIR/report, of a published folder into the folder itself. Nothing is run.

    Example:  tinydrop report runs/quickstart --csv table.csv
    """

    from harness.report.cells import cell_table, read_cells
    from harness.report.stealth import stealth_table
    from harness.report.write import as_csv, as_json
    from harness.store.folder import write_atomically
    from harness.store.records import read_plan

    if (dir_ / "cells.csv").is_file():
        cells, folder = read_cells(dir_ / "cells.csv"), dir_
    else:
        store = run.stored(dir_)
        cells, folder = cell_table(store, (cell["key"] for cell in read_plan(store))), dir_ / "report"
        if cells.empty:
            refuse(f"DIR: {str(dir_)!r} has no finished cell yet; see `tinydrop status {dir_}`")
    tables, _ = run.write_report(cells, folder)
    for task in tables.stealth.task.unique() if stealth and not tables.stealth.empty else ():
        out.print(stealth_table(tables.stealth, task))
    for path, text in ((csv, as_csv), (json_file, as_json)):
        if path is not None:
            write_atomically(path, text(tables.summary))
            out.print(f"written: {path}", highlight=False, soft_wrap=True)


def show(
    dir_: run.Dir,
    cell: Annotated[
        str,
        typer.Argument(
            metavar="CELL", help="task/attack/dose/defense/seed, with or without options; or the digits of a key."
        ),
    ],
) -> None:
    """One record, human-readable, traceback included, and where that is kept which a failed cell printed.

    Example:  tinydrop show runs/quickstart digits/badnets/10/none/0
    """
    from harness.store.folder import KEY, PLAN
    from harness.store.records import SETTLED, load_all, read_plan

    store = run.stored(dir_)
    found = list(load_all(store).values())
    hits = _called(cell, found)
    if len({record.label for record in hits}) != 1:
        refuse(f"CELL: {_not_one(cell, hits, found)}; `tinydrop report {dir_}` shows them all")
    planned = {planned["key"] for planned in read_plan(store)} if (store.root / PLAN).is_file() else set()
    record, *older = sorted(hits, key=lambda record: (record.key in planned, record.started), reverse=True)
    _show(record)
    if record.status not in SETTLED and KEY.fullmatch(record.key) and store.log_path(record.key).is_file():
        out.print(f"what it printed: {store.log_path(record.key)}", highlight=False, soft_wrap=True)
    if older:
        keys = ", ".join(record.key for record in older)
        out.print(f"by other code there are, under the same label: {keys}", highlight=False, soft_wrap=True)


def _called(cell: str, found: list[Record]) -> list[Record]:
    """The records of this label; or else of a key that begins so; or else of these names, whatever the options."""
    for names in (
        lambda r: r.label == cell,
        lambda r: r.key.startswith(cell),
        lambda r: f"{r.task.name}/{r.attack.name}/{r.dose}/{r.defense.name}/{r.seed}" == cell,
    ):
        if hits := [record for record in found if names(record)]:
            return hits
    return []


def _not_one(cell: str, hits: list[Record], found: list[Record]) -> str:
    """Why that is no cell, and which ones might be meant."""
    from difflib import get_close_matches

    labels = sorted({record.label for record in hits or found})
    if not labels:
        return f"{cell!r}: no cell of this run is finished yet"
    some = labels[:3] if hits else get_close_matches(cell, labels) or labels[:1]
    why = f"{cell!r} fits {len(labels)} cells; give one of them" if hits else f"unknown {cell!r}; did you mean"
    return f"{why}: {', '.join(some)}"


def _show(record: Record) -> None:
    tree = record.model_dump(exclude={"traceback", "metrics", "fits"})
    out.print(f"{record.label}  {record.status}  {record.reason}", highlight=False, soft_wrap=True, style="bold")
    for name, metric in sorted(record.metrics.items()):
        out.print(f"  {name:26} {metric.value:.4f}  (n = {metric.n})", highlight=False)
    out.print(json.dumps(tree, indent=1), highlight=False, soft_wrap=True)
    out.print(f"fits: {len(record.fits)}, {record.fit_seconds:.1f} s of training behind this cell", highlight=False)
    if record.traceback:
        out.print(record.traceback, highlight=False, soft_wrap=True)
