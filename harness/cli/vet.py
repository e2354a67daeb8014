"""The command that vets training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import SUSPICIOUS
from harness.console import err, out


def vet(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A CSV file of texts, or a folder with one sub-folder per class.")
    ],
    trusted: Annotated[
        str,
        typer.Option("--trusted", help="Rows of the same kind that you trust; they give the rate of false alarms."),
    ] = "",
    source: Annotated[str, typer.Option("--source", help="Column of the CSV file that says who delivered a row.")] = "",
    text: Annotated[str, typer.Option("--text", help="Column of the texts.")] = "text",
    label: Annotated[str, typer.Option("--label", help="Column of the labels.")] = "label",
    rate: Annotated[
        float, typer.Option("--rate", min=0.0001, max=0.5, help="Share of clean rows that a check may flag.")
    ] = 0.01,
    level: Annotated[
        float, typer.Option("--level", min=0.0001, max=0.5, help="Chance of any false accusation of a source.")
    ] = 0.05,
    victim: Annotated[bool, typer.Option("--victim", help="Train a victim too, and look at its features.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of all draws.")] = 0,
    to: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for vet.json, quarantine.csv and sources.csv.")
    ] = Path("vet"),
) -> None:
    """Is this training data poisoned? Routine checks of every row, and of everybody who delivered rows.

    Each check ranks all rows. Trusted rows, checked along with them, give the threshold that a share RATE of clean rows
    exceeds: how many rows then lie above it, and how many would of clean data, is said beside each other. A source is
    accused where its rows are more suspicious than rows of the same classes that are drawn at random. Without --trusted
    rows are only listed, and nothing is said of how many are poison.

    Example:  tinydrop vet comments.csv --source author --trusted checked.csv
    Example:  tinydrop vet pictures --trusted checked_pictures -o report

    Exit codes: 0 nothing stands out, 3 rows or sources do, 2 unusable input.
    """
    from tempfile import TemporaryDirectory

    from harness.audit import vetted
    from harness.audit.vet import open_rows
    from harness.audit.vet import vet as run_checks
    from harness.report.write import as_csv
    from harness.store.folder import Store, write_atomically
    from tasks.plugin import BadInput

    task, rows = open_rows(data, text, label, source)
    known = None
    if trusted:
        other, known = open_rows(trusted, text, label, "")
        if (other.modality, other.classes) != (task.modality, task.classes):
            raise BadInput(f"--trusted {trusted}: has the classes {', '.join(other.classes)}, DATA has others")
    with TemporaryDirectory() as folder:

        def say(name: str) -> None:
            err.print(f"check: {name}", highlight=False)

        found = run_checks(task, rows, known, rate, level, seed, Store(Path(folder)), victim, say)
    for table in vetted.tables(found):
        out.print(table)
    settings = {"rate": rate, "level": level, "seed": seed, "victim": victim}
    write_atomically(to / "vet.json", vetted.as_json(found, task, data, trusted, settings))
    frames = {"quarantine": vetted.quarantine_frame(found, task), "sources": vetted.sources_frame(found)}
    for name, frame in frames.items():
        if not frame.empty:
            write_atomically(to / f"{name}.csv", as_csv(frame))
            out.print(f"written: {to / name}.csv", highlight=False, soft_wrap=True)
    out.print(vetted.headline(found), highlight=False, soft_wrap=True)
    if found.quarantined.any():
        raise typer.Exit(SUSPICIOUS)
