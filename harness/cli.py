"""The command line. Nothing heavy is imported before a verb needs it: `--help` must answer at once."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from harness import cli_plugins, cli_store
from harness.console import err, out

if TYPE_CHECKING:
    import pandas as pd

    from harness.records import Record
    from harness.report import Tables

app = typer.Typer(
    name="tinydrop",
    help="How many training samples does it take to backdoor a model, and how many more once it is defended?\n\n"
    "Start with:  tinydrop run quickstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("list")(cli_plugins.list_)
app.command()(cli_plugins.new)
app.command()(cli_plugins.check)
app.command()(cli_store.verify)
app.command()(cli_store.gc)
app.command()(cli_store.merge)

Dir = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run, e.g. runs/quickstart.")]


def main() -> None:
    """The command `tinydrop`. Exit codes: 0 all done or not applicable, 1 some cells failed, 2 unusable input."""
    warnings.showwarning = lambda message, *rest: err.print(f"warning: {message}", highlight=False)
    try:
        app()
    except KeyboardInterrupt:
        err.print("stopped; every finished cell is kept, the same command goes on from here")
        sys.exit(130)
    except Exception as error:
        if not _expected(error):
            raise
        _refuse(_in_one_line(error))


def _expected(error: Exception) -> bool:
    """Mistakes of the user or of the disk, which need a line and not a traceback."""
    from harness.grid import BadGrid
    from harness.ledger import BrokenLedger
    from harness.records import NewerSchema
    from harness.registry import BadPlugin, UnknownName

    return isinstance(error, BadGrid | BadPlugin | BrokenLedger | UnknownName | NewerSchema | OSError)


def _in_one_line(error: Exception) -> str:
    from harness.store import DISK_FULL

    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return f"the disk is full ({error}); free some space and run the same command again: finished cells are kept"
    return " ".join(str(error).split())


@app.command()
def run(
    grid: Annotated[str, typer.Argument(metavar="GRID", help="A preset (quickstart, ...) or a YAML file.")],
    to: Annotated[Path | None, typer.Option("--out", help="Folder of the run.", show_default="runs/GRID")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="key=value: doses=[0,5], digits.epochs=5, ...; repeatable.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=0, help="Worker processes; 0 runs in this one.", show_default="a core each, 8 at most"),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where victims are trained.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Bisect the doses of every curve for its ED50 instead of running all.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run failed and timed-out cells again.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Cells by name of task, attack or defense, or by label: badnets, 'digits/*/5/*'."),
    ] = None,
    skip: Annotated[list[str] | None, typer.Option("--skip", help="Leave these out, likewise.")] = None,
    time_budget: Annotated[
        str | None, typer.Option("--time-budget", metavar="TIME", help="Stop after 2h, 1h30m or 90s.")
    ] = None,
    max_failures: Annotated[
        int | None, typer.Option("--max-failures", min=1, help="Stop when so many cells failed.")
    ] = None,
    wandb: Annotated[
        Literal["offline", "online", "disabled"], typer.Option(help="Log to Weights & Biases.")
    ] = "disabled",
    deterministic: Annotated[bool, typer.Option("--deterministic", help="Deterministic GPU kernels (slower).")] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile the victims (pays on long runs).")] = False,
    plugins: Annotated[
        list[Path] | None,
        typer.Option("--plugin", help="A file with a plug-in of your own; repeatable."),
    ] = None,
) -> None:
    """Run a grid: task x attack x dose x defense x seed. Finished cells are never repeated; stop and start at will.

    Example:  tinydrop run quickstart --set seeds=[0,1,2] --jobs 2
    """
    from harness import grid as grids
    from harness import limits as limits_of
    from harness.limits import Limits
    from harness.progress import duration, watching
    from harness.registry import add_file
    from harness.report import cells_frame
    from harness.run import default_jobs, estimate, execute, execute_adaptive, folder, plan, relevant
    from harness.store import Store
    from harness.wandb_log import logger
    from harness.work import Settings

    for file in plugins or []:
        add_file(file)
    chosen = grids.read(grid, changes or [])
    store = Store(folder(grid, to))
    limits = Limits(limits_of.seconds(time_budget) if time_budget else None, max_failures)
    todo = plan(chosen, store, retry, only or [], skip or [])
    seconds = estimate(todo, store)
    out.print(
        f"{len(todo.cells)} cells in {store.root}: {len(todo.cells) - len(todo.todo)} already recorded, "
        f"{len(todo.todo)} to run on {todo.victims} undefended victims (defenses that retrain add their own)",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    jobs = default_jobs(device) if jobs is None else jobs
    if todo.todo and seconds is not None:
        out.print(
            f"about {duration(seconds / max(1, jobs))} of work left with {max(1, jobs)} worker(s)", highlight=False
        )
    elif dry_run and todo.todo:
        out.print("no time estimate before the first cell of this folder has run")
    if dry_run:
        return
    settings = Settings(
        store=str(store.root), device=device, timeout=chosen.timeout, deterministic=deterministic, compiled=compiled,
        plugins=tuple(str(file.resolve()) for file in plugins or []),
    )  # fmt: skip
    with logger(wandb, grid, chosen, store) as log:
        with watching(out, len(todo.todo)) as watch:
            for event in limits.watch((execute_adaptive if adaptive else execute)(todo, settings, jobs)):
                watch(event)
                if event.record is not None:
                    log.cell(event.record)
        done = relevant(todo, store)
        _, figures = _report(cells_frame(done), store.root / "report")
        log.finish(figures)
    out.print(f"records: {store.root / 'records'}", highlight=False, soft_wrap=True)
    out.print(
        f"csv:     {store.root / 'report' / 'summary.csv'}  (one row per cell: cells.csv)",
        highlight=False,
        soft_wrap=True,
    )
    out.print(f"figures: {store.root / 'report'}/*.png", highlight=False, soft_wrap=True)
    if limits.reached:
        err.print(f"stopped: {limits.reached}; every finished cell is kept, the same command goes on", soft_wrap=True)
    bad = [r for r in done if r.status in ("failed", "timed out")]
    if bad:
        err.print(
            f"{len(bad)} cells failed: see `tinydrop status {store.root}`; `--retry` runs them again", soft_wrap=True
        )
        raise typer.Exit(1)


@app.command()
def status(
    dir_: Dir, as_json: Annotated[bool, typer.Option("--json", help="Counts and reasons, for scripts.")] = False
) -> None:
    """Counts of done, failed, timed out, not applicable and pending cells, with the reasons.

    Example:  tinydrop status runs/quickstart
    """
    from collections import Counter

    from rich.table import Table

    from harness.records import planned
    from harness.store import Store

    counts = Counter({"done": 0, "failed": 0, "timed out": 0, "not applicable": 0, "pending": 0})
    reasons: Counter[tuple[str, str]] = Counter()
    for _, record in planned(Store(dir_)):
        state = record.status if record else "pending"
        counts[state] += 1
        if record and record.reason:
            reasons[state, record.reason] += 1
    if as_json:
        listed = [{"status": s, "reason": r, "cells": n} for (s, r), n in reasons.most_common()]
        print(json.dumps({**counts, "total": counts.total(), "reasons": listed}, indent=1))
        return
    out.print(", ".join(f"{n} {state}" for state, n in counts.items()) + f" of {counts.total()}", highlight=False)
    if reasons:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("cells", "status", "reason"):
            table.add_column(column)
        for (ended, reason), n in reasons.most_common():
            table.add_row(str(n), ended, reason)
        out.print(table)


@app.command()
def report(
    dir_: Dir,
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write the summary table here.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="The same as JSON.")] = None,
    stealth: Annotated[
        bool, typer.Option("--stealth", help="Also print what a routine check would have seen of the poison.")
    ] = False,
) -> None:
    """Print the table and rewrite CSV and figures from the records, or from the cells.csv of a published folder.

    Example:  tinydrop report runs/quickstart --csv table.csv
    """
    from harness import report as reports
    from harness import stealth_table
    from harness.records import planned
    from harness.store import Store, write_atomically

    if (dir_ / "cells.csv").is_file():
        cells, folder = reports.read_cells(dir_ / "cells.csv"), dir_
    else:
        found = [record for _, record in planned(Store(dir_)) if record is not None]
        if not found:
            _refuse(f"DIR: {str(dir_)!r} has no finished cell yet; see `tinydrop status {dir_}`")
        cells, folder = reports.cells_frame(found), dir_ / "report"
    tables, _ = _report(cells, folder)
    for task in tables.stealth.task.unique() if stealth and not tables.stealth.empty else ():
        out.print(stealth_table.printed(tables.stealth, task))
    for path, text in ((csv, reports.as_csv), (json_file, reports.as_json)):
        if path is not None:
            write_atomically(path, text(tables.summary))
            out.print(f"written: {path}", highlight=False, soft_wrap=True)


@app.command()
def trials(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task's name.")],
    to: Annotated[Path, typer.Option("--out", help="The JSON file to write; an attack takes it as `trials`.")],
    count: Annotated[int, typer.Option(min=1, help="How many trials.")] = 24,
    bases: Annotated[int, typer.Option(min=1, help="Training rows per trial: the largest dose.")] = 50,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Task options: train_size=1000; repeatable.")
    ] = None,
) -> None:
    """Freeze trials for targeted attacks: target instance, wanted class and base rows, drawn once and written down.

    They fit every run with the same subset_seed and reserve_size and no smaller train_size and test_size.

    Example:  tinydrop trials digits --set train_size=1000 --out my_trials.json
    """
    import torch

    from harness.freeze import freeze
    from harness.grid import BadGrid, split_change
    from harness.registry import create
    from harness.store import write_atomically
    from tasks.base import BadInput, Task

    try:
        given = dict(split_change(change, "train_size=1000") for change in changes or [])
        chosen = create("tasks", task, given)
        assert isinstance(chosen, Task)
        found = freeze(chosen, count, bases, torch.device("cpu"))
    except (BadGrid, BadInput) as error:
        _refuse(str(error))
    lines = ",\n ".join(json.dumps(trial) for trial in found)
    write_atomically(to, f"[{lines}]\n")
    out.print(f"{len(found)} trials written: {to}", highlight=False, soft_wrap=True)


@app.command()
def show(
    dir_: Dir,
    cell: Annotated[str, typer.Argument(metavar="CELL", help="Key (its first digits do) or label of a cell.")],
) -> None:
    """One record, human-readable, traceback included.

    Example:  tinydrop show runs/quickstart digits/badnets/10/none/0
    """
    from harness.records import load_all
    from harness.registry import suggest
    from harness.store import Store

    found = load_all(Store(dir_))
    hits = [r for r in found.values() if r.key.startswith(cell) or r.label == cell]
    if len(hits) != 1:
        many = f"CELL: {cell!r} fits {len(hits)} cells; give more of the key"
        _refuse(many if hits else suggest("CELL", cell, sorted(r.label for r in found.values())[:2000])[:600])
    _show(hits[0])


def _show(record: Record) -> None:
    tree = record.model_dump(exclude={"traceback", "metrics", "fits"})
    out.print(f"{record.label}  {record.status}  {record.reason}", highlight=False, soft_wrap=True, style="bold")
    for name, metric in sorted(record.metrics.items()):
        out.print(f"  {name:26} {metric.value:.4f}  (n = {metric.n})", highlight=False)
    out.print(json.dumps(tree, indent=1), highlight=False, soft_wrap=True)
    out.print(f"fits: {len(record.fits)}, {record.fit_seconds:.1f} s of training behind this cell", highlight=False)
    if record.traceback:
        out.print(record.traceback, highlight=False, soft_wrap=True)


def _report(cells: pd.DataFrame, folder: Path) -> tuple[Tables, list[Path]]:
    from harness import dose_table
    from harness import report as reports

    tables = reports.tables(cells)
    figures = reports.write(tables, folder)
    for task in dict.fromkeys(tables.summary.task) if not tables.summary.empty else ():
        out.print(reports.printed(tables.summary, task))
        if not tables.doses.empty and (tables.doses.task == task).any():
            out.print(dose_table.printed(tables.doses, task))
    if not tables.scaling.empty:
        out.print(dose_table.printed_scaling(tables.scaling))
    if not tables.worst.empty:
        out.print(reports.printed_worst(tables.worst))
    return tables, figures


def _refuse(message: str) -> NoReturn:
    err.print(f"error: {message}", highlight=False, soft_wrap=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
