"""The command that says how far a run is."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Dir, open_run
from harness.console import out

if TYPE_CHECKING:
    from rich.console import RenderableType

    from harness.store.folder import Store

WATCH_EVERY = 2.0  # seconds between two looks


def status(
    dir_: Dir,
    as_json: Annotated[bool, typer.Option("--json", help="Counts and reasons, for scripts.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep looking until nothing is pending; Ctrl-C ends it.")
    ] = False,
) -> None:
    """Counts of done, failed, timed out, not applicable and pending cells, with the reasons.

    Example:  tinydrop status runs/quickstart
    """
    from rich.live import Live

    store = open_run(dir_)
    counts = count_cells(store)
    if as_json:
        print(json.dumps(counts, indent=1))
        return
    if not watch:
        out.print(_render(counts))
        return
    with Live(_render(counts), console=out, auto_refresh=False) as live:
        while counts["pending"]:
            time.sleep(WATCH_EVERY)
            store.pull()
            counts = count_cells(store)
            live.update(_render(counts), refresh=True)


def count_cells(store: Store) -> dict[str, Any]:
    """Cells by status, their total, the reasons why cells are not done, and the notes on the data of each task."""
    from collections import Counter

    from harness.report.cells import cell_table, notes_by_task
    from harness.store.records import read_plan

    keys = [cell["key"] for cell in read_plan(store)]
    cells = cell_table(store, keys)
    pairs = Counter(zip(cells.status, cells.reason)) if len(cells) else Counter()
    reasons = [
        {"status": status, "reason": reason, "cells": n} for (status, reason), n in pairs.most_common() if reason
    ]
    counts = dict.fromkeys(("done", "failed", "timed out", "not applicable"), 0)
    for (status, _), n in pairs.items():
        counts[status] += n
    notes = [{"task": task, "note": note} for task, said in notes_by_task(cells).items() for note in said]
    return {**counts, "pending": len(keys) - len(cells), "total": len(keys), "reasons": reasons, "notes": notes}


def _render(counts: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts = [f"{n} {status}" for status, n in counts.items() if status not in ("total", "reasons", "notes")]
    line = Text(f"{', '.join(parts)} of {counts['total']}")
    notes = [Text(f"{row['task']}: {row['note']}") for row in counts["notes"]]
    if not counts["reasons"]:
        return Group(line, *notes)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("cells", "status", "reason"):
        table.add_column(column)
    for row in counts["reasons"]:
        table.add_row(str(row["cells"]), row["status"], Text(row["reason"]))
    return Group(line, table, *notes)
