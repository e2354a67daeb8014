"""The commands that run cells: a grid, or what failed of one; and how far it is."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.console import err, out
from harness.plugins.registry import PRESETS
from harness.run import memory

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from harness.report.tables import Tables
    from harness.run.budget import Limits
    from harness.run.plan import Plan
    from harness.run.ray_tasks import Cluster
    from harness.run.record_cell import Settings
    from harness.store.folder import Store

WATCHED = 2.0  # seconds between two looks
MOST = 10  # runs named to somebody who asked for another


def local(text: str) -> Path:
    """The folder of a run; of a URL the working copy, with all that others have recorded."""
    from harness.store.open import is_url, opened

    if not is_url(text):
        return Path(text)
    store = opened(text)
    store.pull()
    return store.root


def stored(folder: Path) -> Store:
    """The store of a run's folder. Raises FileNotFoundError for one that is none, naming the runs that are here."""
    from harness.store.folder import KEPT, PLAN
    from harness.store.open import opened

    store = opened(folder)
    if not any((folder / name).exists() for name in (*KEPT, PLAN)):
        here = [str(path.parent) for path in sorted(Path("runs").glob(f"*/{PLAN}"))]
        way = f"runs here: {', '.join(here[:MOST])}" if here else "start one with `tinydrop run`"
        raise FileNotFoundError(f"DIR: {store.address!r} holds no run; {way}")
    return store


Dir = Annotated[Path, typer.Argument(metavar="DIR", parser=local, help="Folder or URL of a run, e.g. runs/quickstart.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Worker processes; 0 runs one cell after the other in this one.",
        show_default="a core each, 8 at most; on a GPU what fits",
    ),
]
Device = Annotated[memory.Device, typer.Option(help="Where victims are trained; auto takes a GPU if there is one.")]
Gpus = Annotated[
    int | None, typer.Option(min=1, help="Over how many GPUs workers are dealt.", show_default="all that are visible")
]
Executor = Annotated[
    Literal["local", "ray"],
    typer.Option(help="Worker processes here, or tasks of a Ray cluster whose nodes share the run's folder."),
]
Address = Annotated[
    str, typer.Option(help='Of a running Ray: host:port, or "auto" for the one here.', show_default="starts one here")
]
GpuShare = Annotated[
    float | None,
    typer.Option(
        min=0, help="Part of a GPU that Ray gives a victim; 0.25 puts four on each.", show_default="1 or none"
    ),
]
Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", help="A plug-in of your own: a file, or module:Class; repeatable.")
]
Deterministic = Annotated[bool, typer.Option("--deterministic", help="Deterministic GPU kernels (slower).")]
Compiled = Annotated[bool, typer.Option("--compile", help="torch.compile the victims (pays on long runs).")]


def run(
    grid: Annotated[str, typer.Argument(metavar="GRID", help=f"A YAML file, or a preset: {', '.join(PRESETS)}.")],
    to: Annotated[
        str,
        typer.Option(
            "--out", help="Folder of the run, or a URL that fsspec knows: s3://bucket/mine.", show_default="runs/GRID"
        ),
    ] = "",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="key=value: doses=[0,5], digits.epochs=5, ...; repeatable.")
    ] = None,
    jobs: Jobs = None,
    device: Device = "auto",
    gpus: Gpus = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive", help="Bisect the doses of every curve for its ED50 (half of the way) instead of running all."
        ),
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run failed and timed-out cells again.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", help="Cells of a task, attack or defense, or by label: `badnets`, `'digits/*/5/*'`; repeatable."
        ),
    ] = None,
    skip: Annotated[list[str] | None, typer.Option("--skip", help="Leave such cells out; repeatable.")] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="K/N", help="The K-th of N parts, for machines that share nothing.")
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option("--time-budget", metavar="TIME", help="Stop after 2h, 1h30m or 90s.")
    ] = None,
    max_failures: Annotated[
        int | None, typer.Option("--max-failures", min=1, help="Stop when so many cells failed.")
    ] = None,
    wandb: Annotated[
        Literal["offline", "online", "disabled"], typer.Option(help="Log to Weights & Biases.")
    ] = "disabled",
    executor: Executor = "local",
    address: Address = "",
    gpu_share: GpuShare = None,
    deterministic: Deterministic = False,
    compiled: Compiled = False,
    plugins: Plugins = None,
) -> None:
    """Run a grid: task x attack x dose x defense x seed. Finished cells are never repeated; stop and start at will.

    A dose is an exact number of poisoned training samples. The table, the CSV and the figures come at the end; all of
    it is kept in the run's folder, and `--dry-run` says first how many cells there are and how long they may take.

    Several runs may share one folder or URL, from any number of machines: no cell is run by two of them.

    Example:  tinydrop run quickstart --set seeds=[0,1,2] --jobs 2
    """
    from harness.console import duration
    from harness.grid import grid as grids
    from harness.grid.select import parse_shard
    from harness.run.budget import Limits, parse_duration
    from harness.run.plan import chosen_gpus, default_jobs, estimate, folder, plan, settings_of
    from harness.store.open import opened

    add_plugins(plugins)
    chosen = grids.read(grid, changes or [])
    store = opened(folder(grid, to))
    store.pull()
    limits = Limits(None if time_budget is None else parse_duration(time_budget), max_failures)
    part = (0, 1) if shard is None else parse_shard(shard)
    todo = plan(chosen, store, retry, only or [], skip or [], part)
    seconds = estimate(todo, store)
    out.print(
        f"{len(todo.cells)} cells in {store.address}: {len(todo.cells) - len(todo.todo)} already recorded, "
        f"{len(todo.todo)} to run on {todo.victims} undefended victims (defenses that retrain add their own)",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    over = chosen_gpus(device, gpus) if executor == "local" else ()
    jobs = default_jobs(over, store) if jobs is None else jobs
    if todo.todo and seconds is not None:
        out.print(
            f"about {duration(seconds / max(1, jobs))} of work left with {max(1, jobs)} worker(s)", highlight=False
        )
    elif dry_run and todo.todo:
        out.print("no time estimate before the first cell of this folder has run")
    if dry_run:
        return
    cluster = _cluster(executor, address, gpu_share, gpus, device)
    settings = settings_of(todo, store, jobs, device, deterministic, compiled, over)
    _carry_out(todo, store, settings, jobs, limits, adaptive, grid, wandb, cluster)


def retry(
    dir_: Dir,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that failed.")] = False,
    timed_out: Annotated[bool, typer.Option("--timed-out", help="Only those that timed out.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=1, help="Seconds a cell may take now.", show_default="the grid's")
    ] = None,
    jobs: Jobs = None,
    device: Device = "auto",
    gpus: Gpus = None,
    executor: Executor = "local",
    address: Address = "",
    gpu_share: GpuShare = None,
    deterministic: Deterministic = False,
    compiled: Compiled = False,
    plugins: Plugins = None,
) -> None:
    """Run the failed and timed-out cells of a run again; what they were stays on record as an earlier attempt.

    Example:  tinydrop retry runs/quickstart --timed-out --timeout 7200
    """
    from harness.grid import grid as grids
    from harness.run.budget import Limits
    from harness.run.plan import Plan, chosen_gpus, default_jobs, settings_of
    from harness.store import records

    add_plugins(plugins)
    store = stored(dir_)
    planned = {cell["label"]: cell["key"] for cell in records.read_plan(store)}
    chosen = grids.planned(records.planned_grid(store))
    both = failed == timed_out  # neither was asked for, or both
    wanted = {"failed", "timed out"} if both else {"failed"} if failed else {"timed out"}
    found = records.load_all(store)
    cells, again = [], []
    for cell in (cell for cell in grids.expand(chosen) if cell.label in planned):
        was = replace(cell, key=planned[cell.label])  # perhaps by older code
        failed_then = was.key in found and found[was.key].status in wanted
        cells.append(cell if failed_then else was)
        again += [cell] * failed_then
    out.print(f"{len(again)} cells to run again", highlight=False)
    over = chosen_gpus(device, gpus) if executor == "local" else ()
    jobs = default_jobs(over, store) if jobs is None else jobs
    todo = Plan(chosen, cells, again)
    settings = settings_of(todo, store, jobs, device, deterministic, compiled, over)
    if timeout is not None:
        settings = replace(settings, timeout=timeout)
    cluster = _cluster(executor, address, gpu_share, gpus, device)
    _carry_out(todo, store, settings, jobs, Limits(), False, str(dir_), "disabled", cluster)


def add_plugins(plugins: list[str] | None) -> None:
    from harness.plugins import custom

    for source in plugins or []:
        custom.add(source)


def _cluster(executor: str, address: str, gpu_share: float | None, gpus: int | None, device: str) -> Cluster | None:
    from harness.errors import BadGrid
    from harness.run.plan import chosen_gpus
    from harness.run.ray_tasks import Cluster

    if executor == "ray":
        if gpus is not None:
            raise BadGrid(f"--gpus {gpus}: is for --executor local; Ray gives GPUs out by --gpu-share")
        if not address:
            chosen_gpus(device)  # a Ray that is started here has this machine's
        return Cluster(address, gpu_share)
    for option, value in {"--address": address, "--gpu-share": gpu_share}.items():
        if value:
            raise BadGrid(f"{option} {value}: is for --executor ray")
    return None


def _carry_out(
    todo: Plan, store: Store, settings: Settings, jobs: int, limits: Limits, adaptive: bool, name: str,
    wandb: Literal["offline", "online", "disabled"], cluster: Cluster | None,
) -> None:  # fmt: skip
    """Run what is missing, report what there is, and leave with 1 if a cell failed or none could be run."""
    from harness.grid import grid as grids
    from harness.plugins import custom
    from harness.report.wandb_log import logger
    from harness.run.live import watching
    from harness.run.plan import execute, execute_adaptive, relevant

    with logger(wandb, name, todo.grid, store) as log:
        try:
            with watching(out, len(todo.todo)) as watch:
                events = (execute_adaptive if adaptive else execute)(todo, settings, jobs, cluster)
                for event in limits.watch(events):
                    watch(event)
                    if event.record is not None:
                        log.log_cell(event.record)
        except KeyboardInterrupt:
            err.print("stopped; every finished cell is kept, the same command goes on from here")
            raise typer.Exit(130) from None
        done = relevant(todo, store)
        log.finish(*write_report(done, store.root / "report"))
    out.print(f"records: {store.root / 'records'}", highlight=False, soft_wrap=True)
    out.print(
        f"csv:     {store.root / 'report' / 'summary.csv'}  (one row per cell: cells.csv)",
        highlight=False,
        soft_wrap=True,
    )
    out.print(f"figures: {store.root / 'report'}/*.png", highlight=False, soft_wrap=True)
    if limits.reached:
        err.print(f"stopped: {limits.reached}; every finished cell is kept, the same command goes on", soft_wrap=True)
    if len(done) and (done.status == "not applicable").all():
        err.print(f"no cell could be run: {done.reason.value_counts().index[0]}", soft_wrap=True, highlight=False)
        raise typer.Exit(1)
    bad = int(done.status.isin(["failed", "timed out"]).sum()) if len(done) else 0
    if bad:
        own = "".join(
            f" --plugin {shlex.quote(source)}" for source in custom.sources(grids.plugin_names(todo.cells), 0)
        )
        where = f"`tinydrop status {store.root}` says why, `tinydrop retry {store.root}{own}` runs them again"
        err.print(f"{bad} cells failed: {where}", soft_wrap=True)
        raise typer.Exit(1)


def write_report(cells: pd.DataFrame, folder: Path) -> tuple[Tables, list[Path]]:
    """Print the tables of these cells and write CSV and figures into a folder."""
    from harness.report.doses import dose_table, scaling_table
    from harness.report.summary import summary_table, worst_table
    from harness.report.write import build_tables, write_tables

    tables = build_tables(cells)
    figures = write_tables(tables, folder)
    for task in dict.fromkeys(tables.summary.task) if not tables.summary.empty else ():
        out.print(summary_table(tables.summary, task))
        if not tables.doses.empty and (tables.doses.task == task).any():
            out.print(dose_table(tables.doses, task))
    if not tables.scaling.empty:
        out.print(scaling_table(tables.scaling))
    if not tables.worst.empty:
        out.print(worst_table(tables.worst))
    return tables, figures


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

    store = stored(dir_)
    tree = counted(store)
    if as_json:
        print(json.dumps(tree, indent=1))
        return
    if not watch:
        out.print(_shown(tree))
        return
    with Live(_shown(tree), console=out, auto_refresh=False) as live:
        while tree["pending"]:
            time.sleep(WATCHED)
            store.pull()
            tree = counted(store)
            live.update(_shown(tree), refresh=True)


def counted(store: Store) -> dict[str, Any]:
    """Cells by status, their total, and the reasons of those that are not done."""
    from collections import Counter

    from harness.report.cells import cell_table
    from harness.store.records import read_plan

    keys = [cell["key"] for cell in read_plan(store)]
    found = cell_table(store, keys)
    pairs = Counter(zip(found.status, found.reason)) if len(found) else Counter()
    listed = [{"status": s, "reason": r, "cells": n} for (s, r), n in pairs.most_common() if r]
    counts = dict.fromkeys(("done", "failed", "timed out", "not applicable"), 0)
    for (ended, _), n in pairs.items():
        counts[ended] += n
    return {**counts, "pending": len(keys) - len(found), "total": len(keys), "reasons": listed}


def _shown(tree: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    counts = {state: n for state, n in tree.items() if state not in ("total", "reasons")}
    line = Text(", ".join(f"{n} {state}" for state, n in counts.items()) + f" of {tree['total']}")
    if not tree["reasons"]:
        return line
    cell_table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("cells", "status", "reason"):
        cell_table.add_column(column)
    for row in tree["reasons"]:
        cell_table.add_row(str(row["cells"]), row["status"], Text(row["reason"]))
    return Group(line, cell_table)
