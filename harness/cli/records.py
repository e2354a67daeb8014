"""The commands that show what is recorded: the tables of a run, and one record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Dir, open_run
from harness.cli.usage import refuse
from harness.console import one_line, out, printable

if TYPE_CHECKING:
    import pandas as pd

    from harness.report.tables import Tables
    from harness.store.records import Record


def report(
    dir_: Dir,
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write the summary table into this file.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="The same table as JSON, into this file.")] = None,
    stealth: Annotated[
        bool, typer.Option("--stealth", help="Also print what a routine check would have seen of the poison.")
    ] = False,
) -> None:
    """Print the table and rewrite CSV and figures from the records, or from the cells.csv of a published folder.

    They go into DIR/report; for a published folder, into the folder itself. Nothing is run.

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
        store = open_run(dir_)
        cells, folder = cell_table(store, (cell["key"] for cell in read_plan(store))), dir_ / "report"
        if cells.empty:
            refuse(f"DIR: {str(dir_)!r} has no finished cell yet; see `tinydrop status {dir_}`")
    tables, _ = report_cells(cells, folder)
    for task in tables.stealth.task.unique() if stealth and not tables.stealth.empty else ():
        out.print(stealth_table(tables.stealth, task))
    for path, text in ((csv, as_csv), (json_file, as_json)):
        if path is not None:
            write_atomically(path, text(tables.summary))
            out.print(f"written: {path}", highlight=False, soft_wrap=True)


def report_cells(cells: pd.DataFrame, folder: Path) -> tuple[Tables, list[Path]]:
    """Print the tables of these cells, and write tables and figures into a folder. Returns the figures' files too."""
    from harness.report.cells import notes_by_task
    from harness.report.datasets import explain_apart
    from harness.report.detection import detection_table
    from harness.report.doses import dose_table, scaling_table
    from harness.report.recipes import recipes_table
    from harness.report.relearning import relearning_table
    from harness.report.summary import summary_table, worst_table
    from harness.report.windows import false_alarms_table, windows_table
    from harness.report.write import build_tables, write_tables

    tables = build_tables(cells)
    figures = write_tables(tables, folder)
    notes = notes_by_task(cells)
    for task in dict.fromkeys(tables.summary.task) if not tables.summary.empty else ():
        out.print(summary_table(tables.summary, task))
        if not tables.doses.empty and (tables.doses.task == task).any():
            out.print(dose_table(tables.doses, task))
        for note in notes.get(task, ()):
            out.print(f"{task}: {note}", highlight=False, soft_wrap=True)
    for line in explain_apart(tables.cells):
        out.print(line, highlight=False, soft_wrap=True, markup=False)
    if not tables.scaling.empty:
        out.print(scaling_table(tables.scaling))
    if not tables.worst.empty:
        out.print(worst_table(tables.worst))
    if not tables.detection.empty and (tables.detection.kind == "models").any():
        out.print(detection_table(tables.detection))
    if not tables.windows.empty:
        out.print(windows_table(tables.windows))
    if not tables.false_alarms.empty:
        out.print(false_alarms_table(tables.false_alarms))
    if not tables.recipes.empty:
        out.print(recipes_table(tables.recipes))
    if not tables.relearning.empty:
        out.print(relearning_table(tables.relearning))
    return tables, figures


def show(
    dir_: Dir,
    cell: Annotated[
        str,
        typer.Argument(
            metavar="CELL", help="task/attack/dose/defense/seed, with or without options; or the digits of a key."
        ),
    ],
) -> None:
    """Print one record, traceback included, and name the file with the output of a cell that failed.

    Example:  tinydrop show runs/quickstart digits/badnets/10/none/0
    """
    from harness.store.folder import KEY, PLAN
    from harness.store.records import SETTLED, find_records, load_all, read_plan

    store = open_run(dir_)
    records = list(load_all(store).values())
    matches = find_records(cell, records)
    if len({record.label for record in matches}) != 1:
        refuse(f"CELL: {_why_not_one(cell, matches, records)}; `tinydrop report {dir_}` shows them all")
    planned = {planned["key"] for planned in read_plan(store)} if (store.root / PLAN).is_file() else set()
    record, *older = sorted(matches, key=lambda record: (record.key in planned, record.started), reverse=True)
    _print_record(record)
    if record.status not in SETTLED and KEY.fullmatch(record.key) and store.log_path(record.key).is_file():
        out.print(f"what it printed: {store.log_path(record.key)}", highlight=False, soft_wrap=True)
    if older:
        keys = ", ".join(record.key for record in older)
        out.print(f"by other code there are, under the same label: {keys}", highlight=False, soft_wrap=True)


def _why_not_one(cell: str, matches: list[Record], records: list[Record]) -> str:
    """Why this names no cell, or several, and which ones may be meant."""
    from difflib import get_close_matches

    labels = sorted({record.label for record in matches or records})
    if not labels:
        return f"{cell!r}: no cell of this run is finished yet"
    if matches:
        return f"{cell!r} fits {len(labels)} cells; give one of them: {', '.join(labels[:3])}"
    return f"unknown {cell!r}; did you mean: {', '.join(get_close_matches(cell, labels) or labels[:1])}"


def _print_record(record: Record) -> None:
    tree = record.model_dump(exclude={"traceback", "metrics", "fits"})
    first = f"{record.label}  {record.status}  {record.reason}"
    out.print(one_line(first, None), highlight=False, soft_wrap=True, style="bold")
    if record.target is not None:
        out.print(f"  target class {record.target}: {printable(record.target_name)}", highlight=False)
    for name, metric in sorted(record.metrics.items()):
        out.print(f"  {name:26} {metric.value:.4f}  (n = {metric.n})", highlight=False)
    out.print(json.dumps(tree, indent=1), highlight=False, soft_wrap=True)
    out.print(f"fits: {len(record.fits)}, {record.fit_seconds:.1f} s of training behind this cell", highlight=False)
    if record.traceback:
        out.print(printable(record.traceback), highlight=False, soft_wrap=True)
