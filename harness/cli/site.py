"""The commands that publish: a leaderboard of runs, and an archive of a run for somebody else's leaderboard."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Dir, local_folder, open_run
from harness.console import out
from harness.errors import BadGrid

if TYPE_CHECKING:
    from harness.site.sources import Joined


def leaderboard(
    dirs: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            parser=local_folder,
            help="Runs (folder or URL), published folders with a cells.csv, archives of `tinydrop submit`.",
        ),
    ],
    to: Annotated[
        Path,
        typer.Option("--out", "-o", help="The folder of the site, or the single file; replaces an older one."),
    ],
    single_file: Annotated[
        bool, typer.Option("--single-file", help="One HTML file: tables, matrices, ranks; -o names it.")
    ] = False,
    cell_pages: Annotated[
        bool | None,
        typer.Option("--cell-pages/--no-cell-pages", help="A page for every cell that has a record; the default."),
    ] = None,
    svg_only: Annotated[bool, typer.Option("--svg-only", help="No PNG and PDF of the figures.")] = False,
    protocol: Annotated[
        bool,
        typer.Option(
            "--protocol", help="Only protocol v1, and only defenses that have run it whole; who lacks what is said."
        ),
    ] = False,
    title: Annotated[str, typer.Option("--title", help="The name of the site.")] = "tinydrop leaderboard",
) -> None:
    """Build a static site: headline, matrices, curves, ranks, coverage, samples; pages of tasks, plug-ins and cells.

    It opens from the disk, without a server or a network. Archives are checked before anything of them is shown.

    Example:  tinydrop leaderboard runs/quickstart -o site
    Example:  tinydrop leaderboard runs/quickstart -o leaderboard.html --single-file
    """
    from rich.filesize import decimal

    from harness.site import sources
    from harness.site.build import Options, build
    from harness.site.charts import FORMATS
    from harness.site.single_page import build_single_page, is_page_name

    if single_file and cell_pages:
        raise BadGrid("--cell-pages: needs a folder; leave --single-file or this option out")
    if is_page_name(to) and not single_file:
        raise BadGrid(f"-o {str(to)!r}: is the name of a page; add --single-file, or name a folder")
    with sources.open_sources(dirs) as opened:
        joined = sources.join_sources(opened)
        if protocol:
            joined = keep_protocol(joined)
        if single_file:
            written = f"{decimal(build_single_page(joined, to, title))} written; open {to}"
        else:
            formats = FORMATS[:1] if svg_only else FORMATS
            files = build(joined, to, Options(cell_pages is not False, formats, title))
            written = f"{files} files written; open {to / 'index.html'}"
    out.print(written, highlight=False, soft_wrap=True)


def keep_protocol(joined: Joined) -> Joined:
    """What of the sources the protocol asks for. Prints which defenses are left out."""
    from harness.site.protocol import keep_entries

    cells, lacks = keep_entries(joined.cells)
    for defense, cells_missing in lacks.items():
        out.print(f"left out: {defense} lacks {cells_missing:,} cells of the protocol", highlight=False, soft_wrap=True)
    return replace(joined, cells=cells, missing=joined.missing[:0])


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
