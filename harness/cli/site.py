"""The commands that publish: a site made of runs, and a run as an archive for somebody else's site."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Dir, local_folder, open_run
from harness.console import out


def leaderboard(
    dirs: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            parser=local_folder,
            help="Runs (folder or URL), published folders with a cells.csv, archives of `tinydrop submit`.",
        ),
    ],
    to: Annotated[Path, typer.Option("--out", "-o", help="The folder of the site; an older site there is replaced.")],
    cell_pages: Annotated[
        bool, typer.Option("--cell-pages/--no-cell-pages", help="A page for every cell that has a record.")
    ] = True,
    svg_only: Annotated[bool, typer.Option("--svg-only", help="No PNG and PDF of the figures.")] = False,
    title: Annotated[str, typer.Option("--title", help="What the site is called.")] = "tinydrop leaderboard",
) -> None:
    """Build a static site: headline, matrices, curves, ranks, coverage, samples; pages of tasks, plug-ins and cells.

    It opens from the disk, without a server or a network. Archives are checked before anything of them is shown.

    Example:  tinydrop leaderboard runs/quickstart -o site
    """
    from harness.site import sources
    from harness.site.build import Options, build
    from harness.site.charts import FORMATS

    formats = FORMATS[:1] if svg_only else FORMATS
    with sources.opened(dirs) as found:
        files = build(sources.joined(found), to, Options(cell_pages, formats, title))
    out.print(f"{files} files written; open {to / 'index.html'}", highlight=False, soft_wrap=True)


def submit(
    dir_: Dir,
    to: Annotated[Path, typer.Option("--out", "-o", help="The archive to write.")],
) -> None:
    """Pack a run's records, samples, plan and ledger into one archive that `tinydrop leaderboard` takes; no weights.

    The ledger says who ran what where (user@host), records say where a plug-in's file lay; both go along. Publish the
    printed head somewhere with a date.

    Example:  tinydrop submit runs/quickstart -o mine.zip
    """
    from rich.filesize import decimal

    from harness.site import archive

    manifest = archive.pack(open_run(dir_), to)
    size, digest = decimal(to.stat().st_size), hashlib.sha256(to.read_bytes()).hexdigest()
    records = sum(path.startswith("records/") for path in manifest.files)
    written = f"{records} records, {len(manifest.files)} files, {size} written: {to}"
    out.print(written, highlight=False, soft_wrap=True)
    out.print(f"SHA-256 {digest}\nledger  {manifest.head}", highlight=False, soft_wrap=True)
