"""The commands that run cells: those of a grid, or those of a run that failed."""

from __future__ import annotations

import shlex
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options
from harness.cli.records import report_cells
from harness.console import err, out

if TYPE_CHECKING:
    import pandas as pd

    from harness.run.budget import Budget
    from harness.run.prepare import PreparedRun


def run(
    grid: options.Grid,
    to: options.Out = None,
    changes: options.Changes = None,
    jobs: options.Jobs = None,
    device: options.Device = "auto",
    gpus: options.Gpus = None,
    dry_run: options.DryRun = False,
    adaptive: options.Adaptive = False,
    retry: options.Retry = False,
    only: options.Only = None,
    skip: options.Skip = None,
    shard: options.Shard = None,
    time_budget: options.TimeBudget = None,
    max_failures: options.MaxFailures = None,
    wandb: options.Wandb = "disabled",
    executor: options.Executor = "local",
    address: options.Address = "",
    gpu_share: options.GpuShare = None,
    deterministic: options.Deterministic = False,
    speedup: options.Speedup = "none",
    plugins: options.Plugins = None,
) -> None:
    """Run a grid: task x attack x dose x defense x seed. Finished cells are never repeated; stop and start at will.

    A dose is an exact number of poisoned training samples. The table, the CSV and the figures come at the end and stay
    in the run's folder. `--dry-run` only prints how many cells there are and how long they may take.

    The data of every task is read before the first cell: a mistake in it ends the command, and nothing is recorded.

    Several runs may share one folder or URL, from any number of machines: no two of them run the same cell.

    Example:  tinydrop run quickstart --set seeds=[0,1,2] --jobs 2
    """
    from harness.grid.read import read_grid
    from harness.grid.select import parse_shard
    from harness.run.budget import Budget, parse_duration
    from harness.run.plan import make_plan
    from harness.run.prepare import default_folder, prepare
    from harness.store.open import open_output

    options.add_plugins(plugins)
    chosen = read_grid(grid, changes or [])
    store = open_output(default_folder(grid) if to is None else to, "--out")
    store.pull()
    budget = Budget(None if time_budget is None else parse_duration(time_budget), max_failures)
    part = (0, 1) if shard is None else parse_shard(shard)
    plan = make_plan(chosen, store, retry, only or [], skip or [], part)
    cluster = options.ray_cluster(executor, address, gpu_share, gpus, device)
    prepared = prepare(
        plan, store, jobs=jobs, device=device, gpus=gpus, cluster=cluster, deterministic=deterministic,
        speedup=speedup,
    )  # fmt: skip
    _print_plan(prepared, dry_run)
    if not dry_run:
        prepared.open_tasks(adaptive)
        _carry_out(prepared, grid, budget, adaptive, wandb)


def retry(
    dir_: options.Dir,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that failed.")] = False,
    timed_out: Annotated[bool, typer.Option("--timed-out", help="Only those that timed out.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=1, help="Seconds a cell may take now.", show_default="the grid's")
    ] = None,
    jobs: options.Jobs = None,
    device: options.Device = "auto",
    gpus: options.Gpus = None,
    executor: options.Executor = "local",
    address: options.Address = "",
    gpu_share: options.GpuShare = None,
    deterministic: options.Deterministic = False,
    speedup: options.Speedup = "none",
    plugins: options.Plugins = None,
) -> None:
    """Run the failed and timed-out cells of a run again; the earlier attempts stay on record.

    Example:  tinydrop retry runs/quickstart --timed-out --timeout 7200
    """
    from harness.run.budget import Budget
    from harness.run.plan import plan_retry
    from harness.run.prepare import prepare

    options.add_plugins(plugins)
    store = options.open_run(dir_)
    both = failed == timed_out  # neither was asked for, or both
    plan = plan_retry(store, ["failed"] * (both or failed) + ["timed out"] * (both or timed_out))
    out.print(f"{len(plan.missing)} cells to run again", highlight=False)
    cluster = options.ray_cluster(executor, address, gpu_share, gpus, device)
    prepared = prepare(
        plan, store, jobs=jobs, device=device, gpus=gpus, cluster=cluster, timeout=timeout,
        deterministic=deterministic, speedup=speedup,
    )  # fmt: skip
    prepared.open_tasks()
    _carry_out(prepared, str(dir_), Budget(), False, "disabled")


def _print_plan(prepared: PreparedRun, dry_run: bool) -> None:
    from harness.console import duration

    plan, workers = prepared.plan, max(1, prepared.jobs)
    out.print(
        f"{len(plan.cells)} cells in {prepared.store.address}: {len(plan.cells) - len(plan.missing)} already recorded, "
        f"{len(plan.missing)} to run on {plan.victims} undefended victims (defenses that retrain add their own)",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    seconds = plan.estimate_seconds()
    if plan.missing and seconds is not None:
        out.print(f"about {duration(seconds / workers)} of work left with {workers} worker(s)", highlight=False)
    elif dry_run and plan.missing:
        out.print("no time estimate before the first cell of this folder has run")


def _carry_out(prepared: PreparedRun, name: str, budget: Budget, adaptive: bool, wandb: options.WandbMode) -> None:
    """Run what is missing and report all that is recorded. Exits with 1 if a cell failed or none could be run."""
    from harness.report.wandb_log import logger

    folder = prepared.store.root
    with logger(wandb, name, prepared.plan.grid, prepared.store) as log:
        try:
            cells = prepared.carry_out(adaptive, budget, log.log_cell)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the exit
            err.print("stopped; every finished cell is kept, the same command goes on from here")
            raise typer.Exit(130) from None
        log.finish(*report_cells(cells, folder / "report"))
    out.print(f"records: {folder / 'records'}", highlight=False, soft_wrap=True)
    summary = folder / "report" / "summary.csv"
    out.print(f"csv:     {summary}  (one row per cell: cells.csv)", highlight=False, soft_wrap=True)
    out.print(f"figures: {folder / 'report'}/*.png", highlight=False, soft_wrap=True)
    if budget.stop_reason:
        reason = budget.stop_reason
        err.print(f"stopped: {reason}; every finished cell is kept, the same command goes on", soft_wrap=True)
    _exit_unless_done(prepared, cells)


def _exit_unless_done(prepared: PreparedRun, cells: pd.DataFrame) -> None:
    from harness.grid.grid import plugin_names
    from harness.plugins import custom

    if len(cells) and (cells.status == "not applicable").all():
        err.print(f"no cell could be run: {cells.reason.value_counts().index[0]}", soft_wrap=True, highlight=False)
        raise typer.Exit(1)
    failed = int(cells.status.isin(["failed", "timed out"]).sum()) if len(cells) else 0
    if failed:
        folder, sources = prepared.store.root, custom.worker_sources(plugin_names(prepared.plan.cells), 0)
        again = "".join([f"tinydrop retry {folder}", *(f" --plugin {shlex.quote(source)}" for source in sources)])
        way_out = f"`tinydrop status {folder}` says why, `{again}` runs them again"
        err.print(f"{failed} cells failed: {way_out}", soft_wrap=True)
        raise typer.Exit(1)
