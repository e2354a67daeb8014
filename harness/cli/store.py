"""The commands about a run's folder: verify it, remove what nothing needs, merge two runs, export to DVC."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Dir, Plugins, add_plugins, local_folder, open_run
from harness.console import err, out

MOST_PROBLEMS = 20  # printed; the others are counted


def verify(
    dir_: Dir,
    head: Annotated[
        str | None,
        typer.Option("--head", help="A head noted earlier, or its first digits: it must still be in the ledger."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove what is damaged; the next run makes it again.")
    ] = False,
) -> None:
    """Check every record, artefact and finding against the ledger: nothing was altered, removed or put there by hand.

    Prints the ledger's head. Note it somewhere else: whoever has it notices a forged ledger.

    Example:  tinydrop verify runs/quickstart
    """
    from harness.errors import BadGrid
    from harness.report.cells import CACHE, cells_frame
    from harness.report.datasets import explain_apart, keep_apart
    from harness.store import maintenance, records

    if head is not None and not head.strip():
        raise BadGrid("--head '': is empty; give the first digits of a head that `tinydrop verify` printed earlier")
    store = open_run(dir_)
    store.restore_damaged()
    result = maintenance.verify(store, head or "")
    (store.root / CACHE).unlink(missing_ok=True)  # a copy of the records in no ledger; it is written again
    for problem in result.problems[:MOST_PROBLEMS]:
        err.print(problem, highlight=False, soft_wrap=True, markup=False)
    if len(result.problems) > MOST_PROBLEMS:
        err.print(f"... and {len(result.problems) - MOST_PROBLEMS} more", highlight=False)
    summary = f"{result.files} files, {result.entries} entries in the ledger, head {', '.join(result.heads) or 'none'}"
    out.print(f"{summary}: {len(result.problems)} problems" if result.problems else f"{summary}: all as written",
              highlight=False, soft_wrap=True)  # fmt: skip
    found = cells_frame(records.load_all(store).values()) if not result.problems else cells_frame([])
    for line in explain_apart(keep_apart(found)):
        out.print(line, highlight=False, soft_wrap=True, markup=False)
    if repair and result.damaged:
        removed = maintenance.repair(store, result)
        out.print(f"{len(removed)} files removed; `tinydrop run` the grid again to make them anew", highlight=False)
    elif result.problems:
        raise typer.Exit(1)


def gc(
    dir_: Dir,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove artefacts that no record used: those of older code, other options, failed cells and killed processes.

    Also removes the logs of cells that failed once and are done now. A cell that needs a removed artefact trains it
    again. Do not use it while a run of the same folder is going on.

    Example:  tinydrop gc runs/quickstart --dry-run
    """
    from harness.store import maintenance

    store = open_run(dir_)
    unused = maintenance.find_unreferenced(store)
    size = sum(map(store.size, unused))
    if not dry_run:
        maintenance.remove_files(store, unused)
    out.print(f"{len(unused)} files, {size / 1e6:.1f} MB {'would go' if dry_run else 'removed'}", highlight=False)


def merge(
    into: Annotated[Path, typer.Argument(metavar="DIR", parser=local_folder, help="Folder or URL to copy into.")],
    other: Annotated[Path, typer.Argument(metavar="OTHER", parser=local_folder, help="Folder or URL to copy from.")],
) -> None:
    """Merge two runs: copy the records, artefacts and findings of OTHER that DIR lacks. OTHER is verified first.

    Example:  tinydrop merge runs/all runs/from_the_other_machine
    """
    from harness.store import maintenance
    from harness.store.open import open_store

    target = open_store(into)
    copied = maintenance.merge(target, open_run(other))
    out.print(", ".join(f"{n} {folder}" for folder, n in copied.items()) + f" copied into {target.address}",
              highlight=False, soft_wrap=True)  # fmt: skip


def dvc(dir_: Dir, plugins: Plugins = None) -> None:
    """Write dvc.yaml, grid.yaml and data.lock into a run's folder, for `dvc repro`, `dvc metrics` and `dvc plots`.

    The folder must be in a DVC repository (`git init && dvc init`). An existing grid.yaml is not changed; without one,
    the whole grid of the newest run is written, whatever --only and --skip said.

    Example:  tinydrop dvc runs/quickstart
    """
    from harness.report import dvc_export

    add_plugins(plugins)
    store = open_run(dir_)
    for task, old, new in dvc_export.list_changed_data(store):
        err.print(f"warning: the data of {task} changed: {old[:12]} is {new[:12]} now", highlight=False, soft_wrap=True)
    for file in dvc_export.write(store, plugins or []):
        out.print(str(file), highlight=False, soft_wrap=True)
    out.print(f"next: cd {dir_} && dvc repro && dvc metrics show && dvc plots show", highlight=False, soft_wrap=True)
