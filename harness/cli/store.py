"""The commands about a run's folder: is it as it was written, what can go, and two made one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.run import Dir, Plugins, add_plugins, local, stored
from harness.console import err, out

SHOWN = 20  # problems printed


def verify(
    dir_: Dir,
    head: Annotated[
        str | None,
        typer.Option("--head", help="A head noted earlier (its first digits do): it must be in the ledger still."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove what is damaged; the next run makes it again.")
    ] = False,
) -> None:
    """Check every record, artefact and finding against the ledger: nothing altered, removed or put there by hand.

    Prints the ledger's head. Note it elsewhere: with it, nobody can make a new ledger unseen.

    Example:  tinydrop verify runs/quickstart
    """
    from harness.errors import BadGrid
    from harness.report.cells import CACHE
    from harness.store import maintenance

    if head is not None and not head.strip():
        raise BadGrid("--head '': is empty; give the first digits of a head that `tinydrop verify` printed earlier")
    store = stored(dir_)
    store.heal()
    found = maintenance.verify(store, head or "")
    (store.root / CACHE).unlink(missing_ok=True)  # a copy, in no ledger: made anew of the records
    for problem in found.problems[:SHOWN]:
        err.print(problem, highlight=False, soft_wrap=True, markup=False)
    if len(found.problems) > SHOWN:
        err.print(f"... and {len(found.problems) - SHOWN} more", highlight=False)
    words = f"{found.files} files, {found.entries} entries in the ledger, head {', '.join(found.heads) or 'none'}"
    out.print(f"{words}: {len(found.problems)} problems" if found.problems else f"{words}: all as written",
              highlight=False, soft_wrap=True)  # fmt: skip
    if repair and found.damaged:
        gone = maintenance.repair(store, found)
        out.print(f"{len(gone)} files removed; `tinydrop run` the grid again to make them anew", highlight=False)
    elif found.problems:
        raise typer.Exit(1)


def gc(
    dir_: Dir,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove artefacts that stand behind no record: of older code, other options, failed cells and killed processes.

    And the logs of cells that failed once and are done now. A cell that needs an artefact again trains it again. Do not
    run it beside a run of the same folder.

    Example:  tinydrop gc runs/quickstart --dry-run
    """
    from harness.store import maintenance

    store = stored(dir_)
    going = maintenance.unreferenced(store)
    size = sum(map(store.size, going))
    if not dry_run:
        maintenance.collect(store, going)
    out.print(f"{len(going)} files, {size / 1e6:.1f} MB {'would go' if dry_run else 'removed'}", highlight=False)


def merge(
    into: Annotated[Path, typer.Argument(metavar="DIR", parser=local, help="Folder or URL that gets what it lacks.")],
    other: Annotated[Path, typer.Argument(metavar="OTHER", parser=local, help="Folder or URL that is read.")],
) -> None:
    """Join two runs: records, artefacts and findings of OTHER go into DIR where that has none. OTHER is verified first.

    Example:  tinydrop merge runs/all runs/from_the_other_machine
    """
    from harness.store import maintenance
    from harness.store.open import opened

    to = opened(into)
    copied = maintenance.merge(to, stored(other))
    out.print(", ".join(f"{n} {folder}" for folder, n in copied.items()) + f" copied into {to.address}",
              highlight=False, soft_wrap=True)  # fmt: skip


def dvc(dir_: Dir, plugins: Plugins = None) -> None:
    """Write dvc.yaml, grid.yaml and data.lock into a run's folder, for `dvc repro`, `dvc metrics` and `dvc plots`.

    The folder must lie in a DVC repository (`git init && dvc init`). A grid.yaml that is there stays as it is; without
    one the grid of the newest run is written, all of it, whatever --only and --skip said.

    Example:  tinydrop dvc runs/quickstart
    """
    from harness.report import dvc_export

    add_plugins(plugins)
    store = stored(dir_)
    for task, old, new in dvc_export.list_changed_data(store):
        err.print(f"warning: the data of {task} changed: {old[:12]} is {new[:12]} now", highlight=False, soft_wrap=True)
    for file in dvc_export.write(store, plugins or []):
        out.print(str(file), highlight=False, soft_wrap=True)
    out.print(f"next: cd {dir_} && dvc repro && dvc metrics show && dvc plots show", highlight=False, soft_wrap=True)
