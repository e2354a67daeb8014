"""The commands about plug-ins: list them, start a new one, check one against its contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.console import err, out

Kind = Literal["tasks", "attacks", "defenses"]


def list_(
    kind: Annotated[Kind | None, typer.Argument(help="tasks, attacks or defenses; all three if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects, for scripts.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="A catalogue page, options included.")] = False,
) -> None:
    """List the plug-ins: name, modality, kind, needs, paper and one line about each.

    Example:  tinydrop list defenses
    """
    from dataclasses import asdict

    from rich.table import Table

    from harness.plugins.catalogue import catalogue
    from harness.plugins.registry import KINDS, entries

    kinds = [kind] if kind else KINDS
    chosen = [entry for each in kinds for entry in entries(each).values()]
    if as_json:
        print(json.dumps([asdict(entry) for entry in chosen], indent=1))
        return
    if as_markdown:
        print(catalogue(chosen), end="")
        return
    for each in kinds:
        table = Table(title=each, title_justify="left", box=None, padding=(0, 2, 0, 0))
        table.add_column("name", no_wrap=True)
        for column in ("modality", "kind", "needs"):
            table.add_column(column)
        table.add_column("paper", no_wrap=True, max_width=17)
        table.add_column("what it does", ratio=1)
        for entry in entries(each).values():
            modalities, needs = ", ".join(entry.modalities), ", ".join(entry.needs)
            summary = entry.summary + (" (unproven)" if entry.verdict.startswith("unproven") else "")
            table.add_row(entry.name, modalities, entry.stage, needs, entry.paper, summary)
        out.print(table)
        out.print()


def new(
    kind: Annotated[Literal["defense", "attack", "task"], typer.Argument(help="The kind of plug-in.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name: a Python module's, e.g. my_defense.")],
    to: Annotated[Path | None, typer.Option("--out", help="Folder to write.", show_default="NAME")] = None,
) -> None:
    """Write a package for a plug-in of your own: one file with one method, a test, an entry point and a grid.

    Example:  tinydrop new defense my_defense
    """
    from harness.cli.scaffold import scaffold

    files = scaffold(kind, name, to or Path(name))
    for file in files:
        out.print(str(file), highlight=False, soft_wrap=True)
    out.print(f"next: cd {files[0].parent}, write its method in {files[0].name}, then", soft_wrap=True, highlight=False)
    for line in (f"check {files[0].name}", f"run grid.yaml --plugin {files[0].name}"):
        out.print(f"  tinydrop {line}", soft_wrap=True, highlight=False)


def check(
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN", help="A plug-in's name, a Python file, or module:Class.")],
    others: Annotated[
        list[str] | None,
        typer.Option("--plugin", help="A plug-in that this one is checked with, such as its task; repeatable."),
    ] = None,
) -> None:
    """Check a plug-in against its contract, in seconds on a CPU. A breach says what to change; the exit code is then 1.

    Example:  tinydrop check my_defense.py
    """
    from harness.errors import Broken, UnknownName
    from harness.plugins import custom
    from harness.plugins.registry import KINDS, entries, suggest
    from harness.testing import check_registered

    for source in others or []:
        custom.add(source)
    name = custom.add(plugin) if plugin.endswith(".py") or ":" in plugin else plugin
    kind = next((k for k in KINDS if name in entries(k)), None)
    if kind is None:
        raise UnknownName(suggest("PLUGIN", name, [n for k in KINDS for n in entries(k)]))
    try:
        with err.status(f"checking {plugin}"):
            costs = check_registered(kind, name)
    except Broken as breach:
        err.print(str(breach), highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    out.print(f"{plugin} keeps the contract", highlight=False)
    for cost in costs:
        out.print(f"  {cost}", highlight=False)
