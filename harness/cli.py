"""The command line. Nothing heavy is imported before a verb needs it: `--help` must answer at once."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from harness import cli_plugins, cli_run, cli_site, cli_store, cli_usage
from harness.console import err, out

if TYPE_CHECKING:
    from harness.records import Record

app = typer.Typer(
    name="tinydrop",
    cls=cli_usage.Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(wanted: bool) -> None:
    if wanted:
        from harness.work import code

        its = code()
        commit = f" (commit {its['commit'][:12]}{', changed since' * its['dirty']})" if its["commit"] else ""
        out.print(f"tinydrop {its['tinydrop']}{commit}", highlight=False)
        raise typer.Exit


@app.callback()
def tinydrop(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """How many training samples does it take to backdoor a model, and how many more once it is defended?

    Start with:  tinydrop run quickstart

    Exit codes: 0 all cells done or not applicable, 1 some failed or none could be run, 2 unusable input, 130 stopped.
    """


def main() -> None:
    """The command `tinydrop`; its help has the exit codes."""
    warnings.showwarning = lambda message, *rest: err.print(f"warning: {message}", highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end is the same as Ctrl-C
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except typer.Abort:  # Ctrl-C, in the words of older versions of typer
        sys.exit(130)
    except Exception as error:
        if not _expected(error):
            raise
        _refuse(_in_one_line(error))


def _expected(error: Exception) -> bool:
    """Mistakes of the user or of the disk, which need a line and not a traceback."""
    from harness.grid import BadGrid
    from harness.ledger import BrokenLedger
    from harness.ray_executor import NoRay
    from harness.records import DamagedPlan, NewerSchema
    from harness.registry import BadPlugin, UnknownName
    from harness.site.build import MissingExtra, NotASite
    from harness.submission import BadSubmission

    mistakes = BadGrid | BadPlugin | BrokenLedger | DamagedPlan | NewerSchema | NoRay | UnknownName
    mistakes |= BadSubmission | MissingExtra | NotASite | cli_usage.UsageError
    return isinstance(error, mistakes | OSError)


def _in_one_line(error: Exception) -> str:
    from harness.store import DISK_FULL

    if isinstance(error, cli_usage.UsageError):
        return " ".join(cli_usage.complaint(error).split())
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return f"the disk is full ({error}); free some space and run the same command again: finished cells are kept"
    return " ".join(str(error).split())


def report(
    dir_: cli_run.Dir,
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
    from harness import compact, stealth_table
    from harness import report as reports
    from harness.records import read_plan
    from harness.store import write_atomically

    if (dir_ / "cells.csv").is_file():
        cells, folder = reports.read_cells(dir_ / "cells.csv"), dir_
    else:
        store = cli_run.stored(dir_)
        cells, folder = compact.table(store, (cell["key"] for cell in read_plan(store))), dir_ / "report"
        if cells.empty:
            _refuse(f"DIR: {str(dir_)!r} has no finished cell yet; see `tinydrop status {dir_}`")
    tables, _ = cli_run.write_report(cells, folder)
    for task in tables.stealth.task.unique() if stealth and not tables.stealth.empty else ():
        out.print(stealth_table.printed(tables.stealth, task))
    for path, text in ((csv, reports.as_csv), (json_file, reports.as_json)):
        if path is not None:
            write_atomically(path, text(tables.summary))
            out.print(f"written: {path}", highlight=False, soft_wrap=True)


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
    from tasks.base import Task
    from tasks.plugin import BadInput

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


def show(
    dir_: cli_run.Dir,
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
    from harness.records import SETTLED, load_all, read_plan
    from harness.store import KEY, PLAN

    store = cli_run.stored(dir_)
    found = list(load_all(store).values())
    hits = _called(cell, found)
    if len({record.label for record in hits}) != 1:
        _refuse(f"CELL: {_not_one(cell, hits, found)}; `tinydrop report {dir_}` shows them all")
    planned = {planned["key"] for planned in read_plan(store)} if (store.root / PLAN).is_file() else set()
    record, *older = sorted(hits, key=lambda record: (record.key in planned, record.started), reverse=True)
    _show(record)
    if record.status not in SETTLED and KEY.fullmatch(record.key) and store.log(record.key).is_file():
        out.print(f"what it printed: {store.log(record.key)}", highlight=False, soft_wrap=True)
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


def _refuse(message: str) -> NoReturn:
    err.print(f"error: {message}", highlight=False, soft_wrap=True)
    sys.exit(2)


app.command()(cli_run.run)
app.command()(cli_run.status)
app.command()(report)
app.command()(show)
app.command()(cli_run.retry)
app.command("list")(cli_plugins.list_)
app.command()(cli_plugins.new)
app.command()(cli_plugins.check)
app.command()(cli_store.verify)
app.command()(cli_store.gc)
app.command()(cli_store.merge)
app.command("dvc")(cli_store.dvc)
app.command()(cli_site.leaderboard)
app.command()(cli_site.submit)
app.command()(trials)


if __name__ == "__main__":
    main()
